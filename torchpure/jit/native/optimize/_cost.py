"""Estimate the time of a kernel, to decide whether several threads share it."""

from collections.abc import Sequence
from math import prod

from torchpure.jit.native.ir import Compute, IndirectLoad, Kernel, Statement

MIN_SHARED_COST = 1 << 17  # cost from which threads share a kernel; about 30 microseconds on one thread
_CHEAP_FUNCTIONS = ("op_max", "op_relu", "op_min", "op_abs", "op_sign", "op_sqrt", "op_floor")
_FUNCTION_COST = 8  # exp, tanh …, against 1 of an addition


def kernel_cost(kernel: Kernel) -> int:
    """Estimate the time of a kernel, in vectorised additions."""
    all_iterations, outer = prod(kernel.sizes), prod(kernel.sizes[: kernel.outer])
    return all_iterations * _cost([*kernel.body, *kernel.reductions]) + outer * _cost(kernel.epilogue)


def _cost(statements: Sequence[Statement]) -> int:
    return sum(
        _FUNCTION_COST
        if isinstance(s, IndirectLoad)
        or (isinstance(s, Compute) and "op_" in s.text and not s.text.startswith(_CHEAP_FUNCTIONS))
        else 1
        for s in statements
    )
