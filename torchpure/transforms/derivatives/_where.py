"""`where` whose derivative is zero, not NaN, in the branch that is not taken."""

from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError


def where(condition: Tensor, x: Any, y: Any, *operands: Tensor, safe: float = 1.0) -> Tree:
    """Choose entries of `x` where the condition holds and of `y` elsewhere.

    `x` and `y` are tensors, numbers, trees of them, or functions of the operands. A function gets `safe` in place of
    the operands' entries where its result is not chosen. Its derivative there is zero, even if it is infinite or NaN at
    the operands. A tensor was computed at the operands themselves, so an infinite derivative times zero gives NaN, as
    in `torch.where`.

    Raises:
        TransformError: the condition is not a tensor of bools, operands are given and neither branch is a function, a
            leaf is no number, or `safe` is no integer and an operand is one.
        StructureError: the branches differ in structure.

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
    if isinstance(chosen, _NUMBERS) and isinstance(other, _NUMBERS):
        return torch.where(condition, chosen, other)
    tree.check_same(chosen, other, caller="where: the branches")
    leaves, structure = tree.flatten(chosen)
    others = tree.align(structure, chosen, other, "where: the branches")
    for number, leaf in enumerate((*leaves, *others)):
        if not isinstance(leaf, _NUMBERS):
            path = tree.paths(chosen)[number % len(leaves)]
            raise TransformError(f"where: at `{path}` wanted tensors or numbers, got {tree.describe(leaf)}")
    return tree.unflatten(structure, [torch.where(condition, a, b) for a, b in zip(leaves, others, strict=True)])


_NUMBERS = (Tensor, float, int, complex)


def _branch(branch: Any, operands: tuple[Tensor, ...], condition: Tensor, safe: float) -> Any:
    if not callable(branch):
        return branch
    return branch(*(torch.where(condition, operand, _safe_number(operand, safe)) for operand in operands))


def _safe_number(operand: Any, safe: float) -> float:
    """Return `safe` as a number that does not change the dtype of an operand."""
    if not isinstance(operand, _NUMBERS):
        raise TransformError(f"where: operands must be tensors, got {tree.describe(operand)}")
    if not isinstance(operand, Tensor) or operand.is_floating_point() or operand.is_complex():
        return safe
    number = bool(safe) if operand.dtype == torch.bool else int(safe)
    if number != safe:
        raise TransformError(f"where: safe={safe} cannot stand in an operand that is {tree.describe(operand)}")
    return number
