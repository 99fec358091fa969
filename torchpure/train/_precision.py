"""Mixed precision and gradient accumulation of a fit."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Params
from torchpure.optim import Optimizer, multi_steps


def accumulated(optimizer: Optimizer[Any], accumulate: int) -> Optimizer[Any]:
    """Return an optimizer that makes one step for the mean gradient of `accumulate` minibatches.

    Raises:
        ValueError: the optimizer needs more than gradients.
    """
    if accumulate == 1:
        return optimizer
    if optimizer.extra:
        needs = ", ".join(optimizer.extra)
        raise ValueError(
            f"fit: accumulate averages gradients only, and this optimizer also needs {needs}: use a larger batch_size"
        )
    return multi_steps(optimizer, accumulate)


def mixed_precision(objective: Callable[..., Any], params: Params, compute_dtype: Any) -> Callable[..., Any]:
    """Return a loss that computes in another dtype; its value, its new state and its gradients stay float32.

    Matrix products and convolutions run in `compute_dtype`; what needs more digits, such as norms and losses, stays in
    float32. torch's autocast decides which; it is active while the loss runs, in this thread.

    Raises:
        ValueError: the dtype is not bfloat16, or a parameter is not float32.
    """
    if compute_dtype is None:
        return objective
    if compute_dtype is not torch.bfloat16:
        raise ValueError(
            f"fit: compute_dtype must be None or torch.bfloat16, got {compute_dtype}: float16 would need a scaled loss"
        )
    leaves = [leaf for leaf in tree.leaves(params) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    wrong = next((leaf for leaf in leaves if leaf.dtype != torch.float32), None)
    if wrong is not None:
        raise ValueError(f"fit: compute_dtype needs parameters of float32, got {tree.describe(wrong)}")
    device = leaves[0].device.type if leaves else "cpu"

    @wraps(objective, updated=())
    def run(*args: Any) -> Any:
        with torch.autocast(device, dtype=compute_dtype):
            result = objective(*args)
        if isinstance(result, tuple):
            value, state = result
            return _to_single(value), tree.map(_like, args[1], state)
        return _to_single(result)

    return run


def _to_single(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def _like(old: Any, new: Any) -> Any:
    return new.to(old.dtype) if isinstance(new, Tensor) and isinstance(old, Tensor) else new
