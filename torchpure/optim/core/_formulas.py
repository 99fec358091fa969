"""Pieces of formulas, for single tensors or for scalars: each has finite derivatives where it is defined."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Grads, ScalarOrSchedule, Step, Tree
from torchpure.transforms.control_flow import cond

Number = float | Tensor


def safe_sqrt(value: Tensor) -> Tensor:
    """Take the square root, with derivative 0 at 0.

    >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
    >>> torch.autograd.grad(safe_sqrt(x).sum(), x)[0]
    tensor([0.0000, 0.2500])
    """
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1).sqrt(), 0)  # the true derivative at 0 is infinite


def safe_divide(over: Tensor, under: Tensor) -> Tensor:
    """Divide, with 0 where the divisor is 0, and derivatives that are 0 there.

    >>> safe_divide(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 4.0]))
    tensor([0.0000, 0.2500])
    """
    zero = under == 0
    return torch.where(zero, 0, over / torch.where(zero, 1, under))


def safe_norm(value: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Return the Euclidean norm, of all entries by default, with derivative 0 at 0."""
    dims = tuple(range(value.ndim)) if dim is None else dim
    return safe_sqrt(value.square().sum(dims, keepdim=keepdim) if value.ndim else value.square())


def safe_rms(value: Tensor) -> Tensor:
    """Return the root of the mean square, with derivative 0 at 0; of no entries 0."""
    return safe_sqrt(value.square().sum() / max(value.numel(), 1))


def blend(old: Tensor, new: Tensor, keep: Number) -> Tensor:
    """Return the running mean keep · old + (1 − keep) · new."""
    return keep * old + (1 - keep) * new


def bias(keep: Number, step: Step) -> Tensor:
    """Return 1 − keepᵗ, by which a running mean that started at 0 is divided.

    >>> bias(0.9, torch.tensor(1.0, dtype=torch.float64))
    tensor(0.1000, dtype=torch.float64)
    """
    if isinstance(keep, float) and keep > 0 and is_dynamo_compiling():
        # the compiler computes a power of a number anew for each entry that it is used for, and an exponential once
        return 1 - torch.exp(step * math.log(keep))
    return 1 - keep**step


def number(value: Number, like: Tensor) -> Tensor:
    """Make a hyper-parameter a tensor of shape (), with the dtype of a leaf: `torch.as_tensor` alone rounds to float32.

    >>> number(0.1, torch.zeros(2, dtype=torch.float64))
    tensor(0.1000, dtype=torch.float64)
    """
    if isinstance(value, Tensor):
        return value.to(dtype=like.dtype, device=like.device)
    return torch.full((), value, dtype=like.dtype, device=like.device)


def value_at(value: ScalarOrSchedule, step: Step) -> float | Tensor:
    """Evaluate a learning rate, or another number that may follow a schedule, at a step count."""
    return value(step) if callable(value) else value


def all_finite(grads: Grads) -> Tensor:
    """Tell whether every entry is finite, shape (), bool."""
    every = [leaf.isfinite().all() for leaf in tree.leaves(grads) if isinstance(leaf, Tensor)]
    return torch.stack(every).all() if every else torch.tensor(True)


def select(condition: Tensor, yes: Tree, no: Tree) -> Tree:
    """Choose a whole tree by a condition of shape (), which may be batched: both are computed, neither is a branch.

    >>> select(torch.tensor(True), {"w": torch.ones(1)}, {"w": torch.zeros(1)})
    {'w': tensor([1.])}
    """
    return tree.map(lambda a, b: torch.where(condition, a, b) if isinstance(a, Tensor) else a, yes, no)


def gate(condition: Tensor, updates: Tree) -> Tree:
    """Keep updates where a condition of shape () holds; else make them zero, with zero derivatives."""
    return tree.map(lambda leaf: torch.where(condition, leaf, 0), updates)


def refreshed(due: Tensor, fresh: Callable[[], Tree], old: Tree) -> Tree:
    """Return `fresh()` when it is due, else copies of the old; what costs much is computed only then, where it can be.

    Under transforms and in traced programs it is a `cond`; for `torch.compile` both are computed and one is chosen.

    >>> refreshed(torch.tensor(False), lambda: torch.ones(1), torch.zeros(1))
    tensor([0.])
    """
    if is_dynamo_compiling():
        return select(due, fresh(), old)
    if not tree.plain([due]):
        return cond(due, fresh, lambda: tree.map(torch.clone, old))
    return fresh() if bool(due) else tree.map(torch.clone, old)
