"""Operations whose derivatives re-run the user's function under torch's own transforms."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.engine import dense, is_variable, torch_jvp, torch_vjp, unaliased

from ._autograd_rules import (
    differentiable,
    instantiate_zeros,
    replace_at,
    save_for_rules,
    saved_primals,
    unwrap_closed_levels,
)
from ._call import Call

Run = Callable[..., tuple[Tensor, ...]]


class Rerun(torch.autograd.Function):
    """`Rerun.apply(call, *tensors)` is `call.value(*tensors)`, run again for each derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        return unaliased(call.value(*tensors), tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        save_for_rules(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        tensors = [unwrap_closed_levels(leaf) for leaf in ctx.saved_tensors]
        parts = vjp_by_rerun(ctx.call.recompute, tensors, ctx.needs_input_grad[1:], cotangents)
        return (None, *ctx.call.expand_over_collectives(parts, tensors))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        return jvp_by_rerun(ctx.call.value, saved_primals(ctx), tangents)


def vjp_by_rerun(
    run: Run, tensors: Sequence[Tensor], needs_grad: Sequence[bool], cotangents: Sequence[Any]
) -> list[Any]:
    """Re-run a function and return its input cotangents; None where no gradient is needed."""
    tensors, cotangents = ([unwrap_closed_levels(leaf) for leaf in leaves] for leaves in (tensors, cotangents))
    diff_inputs = [i for i, leaf in enumerate(tensors) if needs_grad[i] and is_variable(leaf)]
    used_outputs = [i for i, part in enumerate(cotangents) if part is not None]
    parts: list[Any] = [None] * len(tensors)
    if not diff_inputs or not used_outputs:
        return parts

    def restricted(*values: Tensor) -> tuple[Tensor, ...]:
        out = run(*replace_at(tensors, diff_inputs, values))
        return tuple(out[i] for i in used_outputs)

    _, pull = torch_vjp(restricted, *(tensors[i] for i in diff_inputs))
    return replace_at(parts, diff_inputs, pull(tuple(cotangents[i] for i in used_outputs)))


def jvp_by_rerun(run: Run, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> tuple[Any, ...]:
    """Re-run a function and return its output tangents; None for integers."""
    diff_inputs, restricted, output_is_variable = restrict_to_variables(run, tensors)
    in_tangents = instantiate_zeros(tensors, tangents)
    _, out_tangents = torch_jvp(
        restricted, tuple(dense(tensors[i]) for i in diff_inputs), tuple(in_tangents[i] for i in diff_inputs)
    )
    return insert_nones(output_is_variable, out_tangents)


def restrict_to_variables(run: Run, tensors: Sequence[Tensor]) -> tuple[list[int], Run, list[bool]]:
    """Restrict a function to inputs and outputs that are variables.

    Returns:
        The positions of the variables among the tensors, the restricted function, and a list of flags: which outputs
        of `run` are variables. The list is filled when the restricted function runs.
    """
    diff_inputs = [i for i, leaf in enumerate(tensors) if is_variable(leaf)]
    output_is_variable: list[bool] = []

    def restricted(*values: Tensor) -> tuple[Tensor, ...]:
        out = run(*replace_at(tensors, diff_inputs, values))
        output_is_variable[:] = map(is_variable, out)
        return tuple(leaf for leaf in out if is_variable(leaf))

    return diff_inputs, restricted, output_is_variable


def insert_nones(flags: Sequence[bool], values: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values where a flag is True, and None elsewhere."""
    rest = iter(values)
    return tuple(next(rest) if flag else None for flag in flags)
