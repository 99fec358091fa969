"""Parts of update formulas, for tensors and scalars. Each has finite derivatives wherever it is defined."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Grads, ScalarOrSchedule, Step, Tree
from torchpure.transforms.control_flow import cond
from torchpure.transforms.engine import describe_function

Number = float | Tensor


def safe_sqrt(value: Tensor) -> Tensor:
    """Take the square root, with derivative 0 at 0.

    >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
    >>> torch.autograd.grad(safe_sqrt(x).sum(), x)[0]
    tensor([0.0000, 0.2500])
    """
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1).sqrt(), 0)  # the true derivative at 0 is infinite


def is_negligible(value: Tensor) -> Tensor:
    """Return where numbers are 0 or denormal. The inverse of a denormal number may overflow.

    >>> is_negligible(torch.tensor([0.0, -1e-40, 1e-30]))
    tensor([ True,  True, False])
    """
    return value.abs() < torch.finfo(value.dtype).tiny


def safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide; where the divisor is negligible (0 or denormal), the quotient and its derivatives are 0.

    >>> safe_divide(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.0, 1e-40, 4.0]))
    tensor([0.0000, 0.0000, 0.2500])
    """
    negligible = is_negligible(denominator)
    return torch.where(negligible, 0, numerator / torch.where(negligible, 1, denominator))


def overflow_scale(*values: Tensor) -> Tensor:
    """Return 1, or the largest entry in size where sums of squares may overflow. Formulas without a scale divide by it.

    >>> overflow_scale(torch.tensor([3.0, -4.0])), overflow_scale(torch.tensor([3.0, -1e20]))
    (tensor(1.), tensor(1.0000e+20))
    """
    sizes = [value.abs().amax() for value in values if value.numel()]
    largest = torch.stack(sizes).amax() if sizes else values[0].new_ones(())
    return torch.where(largest > torch.finfo(largest.dtype).max ** 0.4, largest, 1)


def safe_norm(value: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Return the Euclidean norm, by default over all entries, with derivative 0 at 0."""
    dims = tuple(range(value.ndim)) if dim is None else dim
    return safe_sqrt(value.square().sum(dims, keepdim=keepdim) if value.ndim else value.square())


def safe_rms(value: Tensor) -> Tensor:
    """Return the root of the mean square, with derivative 0 at 0. It is 0 for an empty tensor."""
    return safe_sqrt(value.square().sum() / max(value.numel(), 1))


def ema_update(old: Tensor, new: Tensor, decay: Number) -> Tensor:
    """Update an exponential moving average: decay · old + (1 − decay) · new."""
    return decay * old + (1 - decay) * new


def bias_correction(decay: Number, step: Step) -> Tensor:
    """Return 1 − decayᵗ. Divide an exponential moving average that started at 0 by it.

    >>> bias_correction(0.9, torch.tensor(1.0, dtype=torch.float64))
    tensor(0.1000, dtype=torch.float64)
    """
    if isinstance(decay, float) and decay > 0 and is_dynamo_compiling():
        # Inductor recomputes a power for each entry that uses it, but computes an exponential once
        return 1 - torch.exp(step * math.log(decay))
    return 1 - decay**step


def scalar_like(value: Number, like: Tensor) -> Tensor:
    """Convert a hyper-parameter to a tensor of shape (), with the dtype and the device of `like`.

    `torch.as_tensor` without a dtype rounds to float32.

    >>> scalar_like(0.1, torch.zeros(2, dtype=torch.float64))
    tensor(0.1000, dtype=torch.float64)
    """
    if isinstance(value, Tensor):
        return value.to(dtype=like.dtype, device=like.device)
    return torch.full((), value, dtype=like.dtype, device=like.device)


def evaluate_schedule(value: ScalarOrSchedule, step: Step) -> float | Tensor:
    """Return the value of a number or of a schedule at a step count.

    Raises:
        TypeError: the schedule returns no number, and no real tensor of shape ().

    >>> evaluate_schedule(lambda step: 0.5**step, torch.tensor(2.0))
    tensor(0.2500)
    """
    if not callable(value):
        return value
    result = value(step)
    if type(result) is float:
        return result
    if isinstance(result, Tensor):
        if not result.is_complex() and result.shape in ((), step.shape):  # steps may be many, as for a plot
            return result
    elif isinstance(result, Real) and not isinstance(result, bool):
        return float(result)
    place = f" at step {int(step)}" if step.ndim == 0 and tree.plain([step]) else ""
    raise TypeError(
        f"the schedule {describe_function(value)} must return a number or a real tensor of shape (), "
        f"got {tree.describe(result)}{place}"
    )


def all_finite(grads: Grads) -> Tensor:
    """Return whether every entry is finite: bool, shape ()."""
    flags = [leaf.isfinite().all() for leaf in tree.leaves(grads) if isinstance(leaf, Tensor)]
    return torch.stack(flags).all() if flags else torch.tensor(True)


def select(condition: Tensor, yes: Tree, no: Tree) -> Tree:
    """Choose one of two trees by a condition of shape (), which may be batched. Both trees are computed.

    >>> select(torch.tensor(True), {"w": torch.ones(1)}, {"w": torch.zeros(1)})
    {'w': tensor([1.])}
    """
    return tree.map(lambda a, b: torch.where(condition, a, b) if isinstance(a, Tensor) else a, yes, no)


def zero_unless(condition: Tensor, values: Tree) -> Tree:
    """Return the tree if a condition of shape () holds, else zeros.

    Also use it on gradients that are not used: a NaN in a branch that `select` drops still makes derivatives NaN.
    """
    return tree.map(lambda leaf: torch.where(condition, leaf, 0), values)


def recompute_if(due: Tensor, compute: Callable[[], Tree], old: Tree) -> Tree:
    """Return `compute()` if `due` is true, else copies of `old`. Use it where `compute` is expensive.

    Eager code calls `compute` only if it is due. Under transforms and in traced programs this is a `cond`. Under
    `torch.compile` both values are computed, and one is selected.

    >>> recompute_if(torch.tensor(False), lambda: torch.ones(1), torch.zeros(1))
    tensor([0.])
    """
    if is_dynamo_compiling():
        return select(due, compute(), old)
    if not tree.plain([due]):
        return cond(due, compute, lambda: tree.map(torch.clone, old))
    return compute() if bool(due) else tree.map(torch.clone, old)
