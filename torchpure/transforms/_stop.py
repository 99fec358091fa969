"""Values without derivatives, and choices whose derivatives stay finite."""

from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError


def stop_gradient(values: Tree) -> Tree:
    """Return the same values as constants: every derivative through them is zero, forwards and backwards.

    >>> from torchpure import grad
    >>> grad(lambda x: x * stop_gradient(x))(torch.tensor(3.0))
    tensor(3.)
    """
    return tree.map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, values)


def where(condition: Tensor, x: Any, y: Any, *operands: Tensor, safe: float = 1.0) -> Tree:
    """Choose entries of `x` where the condition holds and of `y` elsewhere; what is not chosen has derivative zero.

    `x` and `y` are tensors, numbers, trees of such, or functions of the operands. A function sees the operands with
    `safe` in the entries where its result is not chosen, so that a branch whose derivative is infinite or NaN there
    does not spoil the other: `torch.where` would multiply it with zero.

    Raises:
        TransformError: the condition is not a tensor of bools, or operands are given and neither branch is a function.

    >>> from torchpure import grad
    >>> x = torch.tensor([0.0, 4.0])
    >>> grad(lambda x: where(x > 0, torch.sqrt, 0.0, x).sum())(x)
    tensor([0.0000, 0.2500])
    """
    if not isinstance(condition, Tensor) or condition.dtype != torch.bool:
        raise TransformError(f"where: the condition must be a tensor of bools, got {tree.describe(condition)}")
    if bool(operands) != (callable(x) or callable(y)):
        raise TransformError("where: operands are for branches that are functions, and functions need operands")
    chosen = _branch(x, operands, condition, safe)
    other = _branch(y, operands, ~condition, safe)
    if not isinstance(chosen, Tensor | float | int | complex):
        return tree.map(lambda a, b: torch.where(condition, a, b), chosen, other)
    return torch.where(condition, chosen, other)


def _branch(branch: Any, operands: tuple[Tensor, ...], condition: Tensor, safe: float) -> Any:
    if not callable(branch):
        return branch
    return branch(*(torch.where(condition, operand, safe) for operand in operands))
