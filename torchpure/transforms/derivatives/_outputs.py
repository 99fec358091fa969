"""The outputs of a differentiated function: which leaves have derivatives, and how to rebuild the value."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.engine import describe_function, expose_all, is_variable
from torchpure.transforms.purity import refuse_hidden_tensors


class Outputs:
    """The outputs of one call: differentiable tensors pass through torch.func, everything else is kept here."""

    __slots__ = ("_caller", "_fn", "_has_aux", "_leaves", "_structure", "aux")

    def __init__(self, caller: str, fn: Callable[..., Any], has_aux: bool) -> None:
        self._caller, self._fn, self._has_aux = caller, fn, has_aux
        self._structure: Any = None
        self.aux: tuple[list[Any], Any] = ([], None)

    def split(self, output: Any) -> tuple[tuple[Tensor, ...], tuple[list[Tensor], list[Tensor]]]:
        """Return the differentiable leaves, and the other tensors of the value and of aux."""
        if self._has_aux and (not isinstance(output, tuple) or len(output) != 2):
            raise TransformError(
                f"{self._caller}: with has_aux, {describe_function(self._fn)} must return (value, aux), "
                f"got {tree.describe(output)}. Return both, or leave out has_aux"
            )
        value, aux = output if self._has_aux else (output, None)
        leaves, structure = tree.flatten(value)
        if self._structure is None:
            self._structure = structure
        elif structure != self._structure:  # in another chunk
            leaves = tree.ordered(self._structure, value, f"{self._caller}: what {describe_function(self._fn)} returns")
        self._leaves = expose_all(leaves)
        others, structure = tree.flatten(aux)
        self.aux = expose_all(others), structure
        variables = tuple(leaf for leaf in self._leaves if is_variable(leaf))
        if not variables:
            raise TransformError(
                f"{self._caller}: {describe_function(self._fn)} must return floating point or complex tensors, "
                f"got {tree.describe(value)}"
            )
        return variables, (_tensors(leaf for leaf in self._leaves if not is_variable(leaf)), _tensors(self.aux[0]))

    def refuse_hidden_tensors(self) -> None:
        """Check, after the level is closed, that no other leaf of the value or of aux holds a traced tensor.

        Raises:
            TransformError: one does.
        """
        refuse_hidden_tensors(self._caller, self._fn, (*self._leaves, *self.aux[0]))

    def value(self, variables: Any, others: list[Tensor]) -> Tree:
        """Rebuild the value."""
        filled, rest = iter(variables), iter(others)
        leaves = [
            next(filled) if is_variable(leaf) else next(rest) if isinstance(leaf, Tensor) else leaf
            for leaf in self._leaves
        ]
        return tree.unflatten(self._structure, leaves)

    def auxiliary(self, tensors: list[Tensor]) -> Tree:
        """Rebuild aux."""
        rest = iter(tensors)
        leaves, structure = self.aux
        return tree.unflatten(structure, [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves])

    def derivative(self, parts: Any) -> Tree:
        """Arrange parts, one for each differentiable leaf, as the value; other leaves become None."""
        filled = iter(parts)
        return tree.unflatten(self._structure, [next(filled) if is_variable(leaf) else None for leaf in self._leaves])

    def match(self, cotangent: Tree) -> list[Any]:
        """List the leaves of a tree like the value at the places of its differentiable leaves."""
        whole = tree.unflatten(self._structure, self._leaves)
        column = tree.align(self._structure, whole, cotangent, self._caller)
        return [part for part, leaf in zip(column, self._leaves, strict=True) if is_variable(leaf)]

    def paths(self) -> list[str]:
        """Name the path of each differentiable leaf."""
        names = tree.paths(tree.unflatten(self._structure, self._leaves))
        return [f"at `{name}`" for name, leaf in zip(names, self._leaves, strict=True) if is_variable(leaf)]


def _tensors(leaves: Any) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def check_like(caller: str, paths: Callable[[], list[str]], parts: list[Any], wanted: Sequence[Tensor]) -> list[Tensor]:
    """Check that each part has the shape and dtype of its tensor; None becomes zeros."""
    filled = [torch.zeros_like(one) if part is None else part for part, one in zip(parts, wanted, strict=True)]
    for number, (part, one) in enumerate(zip(filled, wanted, strict=True)):
        if not isinstance(part, Tensor) or part.shape != one.shape or part.dtype != one.dtype:
            where = paths()[number]
            raise TransformError(f"{caller} {where}: wanted {tree.describe(one)}, got {tree.describe(part)}")
    return expose_all(filled)
