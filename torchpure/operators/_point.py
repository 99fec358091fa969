"""The point at which an operator is taken: its coordinates, and results in the structure of the arguments."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable
from torchpure.transforms.derivatives import Argnums, Variables
from torchpure.transforms.engine import describe_function

from .rules import explained


class Point:
    """The variables of one call. Its D coordinates are the entries of all of them, in order; immutable."""

    def __init__(
        self,
        caller: str,
        fn: Callable[..., Any],
        argnums: Argnums,
        has_aux: bool,
        args: tuple[Tree, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.caller, self.fn = caller, fn
        self._has_aux, self._kwargs = has_aux, kwargs
        self._variables = Variables(caller, fn, argnums, args)
        self.leaves = self._variables.leaves
        self.sizes = [leaf.numel() for leaf in self.leaves]
        for number, leaf in enumerate(self.leaves):
            if leaf.is_complex():
                raise TransformError(
                    f"{caller}: {describe_function(fn)}: {self._variables.paths()[number]} is complex, and coordinates "
                    "are real: pass its real and imaginary parts"
                )
        if not sum(self.sizes):
            raise TransformError(
                f"{caller}: the point of {describe_function(fn)} has no coordinates: {tree.describe(self.leaves[0])}"
            )

    def call(self, *leaves: Tensor) -> tuple[Tree, Tree]:
        """Run the function at other coordinates; return (value, aux)."""
        out = self.fn(*self._variables.arguments(leaves), **self._kwargs)
        if not self._has_aux:
            return out, None
        if not isinstance(out, tuple) or len(out) != 2:
            raise TransformError(
                f"{self.caller}: with has_aux, {describe_function(self.fn)} must return (value, aux), "
                f"got {tree.describe(out)}. Return both, or leave out has_aux"
            )
        return out

    def velocity(self, velocity: Tree | Callable[..., Tree]) -> Tree:
        """Return a velocity at the point: a tree, a function of the arguments, or None for the value itself."""
        if velocity is None:
            return self.call(*self.leaves)[0]
        return velocity(*self._variables.arguments(self.leaves), **self._kwargs) if callable(velocity) else velocity

    def basis(self) -> list[Tensor]:
        """Return the unit vectors of all coordinates: shape (D, *leaf) for each leaf."""
        count, start, vectors = sum(self.sizes), 0, []
        for leaf, size in zip(self.leaves, self.sizes, strict=True):
            rows = torch.eye(count, dtype=leaf.dtype, device=leaf.device)[:, start : start + size]
            vectors.append(rows.reshape(count, *leaf.shape))
            start += size
        return vectors

    def arranged(self, rows: Tree) -> Tree:
        """Turn rows of shape (D, *value) into the structure of the arguments, with tensors of shape (*value, *leaf)."""

        def one(part: Tensor) -> Tree:
            columns = part.movedim(0, -1).split(self.sizes, -1)
            return self._variables.result(
                [
                    column.reshape(*column.shape[:-1], *leaf.shape)
                    for column, leaf in zip(columns, self.leaves, strict=True)
                ]
            )

        return tree.map(one, rows)

    def like_arguments(self, values: Sequence[Tensor]) -> Tree:
        """Arrange one tensor for each variable in the structure of the arguments."""
        return self._variables.result(values)

    def match(self, what: str, other: Tree) -> list[Tensor]:
        """List the leaves of a tree like the point.

        Raises:
            TransformError: a shape differs.
            StructureError: the structure differs.
        """
        parts = self._variables.match(f"{self.caller}: {what}", other)
        for number, (part, leaf) in enumerate(zip(parts, self.leaves, strict=True)):
            if not isinstance(part, Tensor) or part.shape != leaf.shape:
                raise TransformError(
                    f"{self.caller}: {what} for {self._variables.paths()[number]}: wanted shape {tuple(leaf.shape)}, "
                    f"like the point, got {tree.describe(part)}"
                )
        return [part.to(leaf.dtype) for part, leaf in zip(parts, self.leaves, strict=True)]


def operator(
    caller: str,
    fn: Callable[..., Any],
    argnums: Argnums,
    has_aux: bool,
    run: Callable[[Point], tuple[Tree, Tree]],
) -> Callable[..., Any]:
    """Make the function that an operator returns: `run(point)` gives (result, aux)."""
    check_callable(caller, fn)

    @wraps(fn, updated=())
    def applied(*args: Tree, **kwargs: Any) -> Any:
        point = Point(caller, fn, argnums, has_aux, args, kwargs)
        with explained(caller, fn):
            result, aux = run(point)
        return (result, aux) if has_aux else result

    return applied


def same_shape(point: Point, value: Tree) -> list[Tensor]:
    """List the leaves of a value that must have the shapes of the point.

    Raises:
        TransformError: they differ.
    """
    leaves = tree.leaves(value)
    got = [tuple(leaf.shape) if isinstance(leaf, Tensor) else tree.describe(leaf) for leaf in leaves]
    wanted = [tuple(leaf.shape) for leaf in point.leaves]
    if got != wanted:
        raise TransformError(
            f"{point.caller}: {describe_function(point.fn)} must return as many components as the point has "
            f"coordinates: wanted shapes {wanted}, got {got}. It is taken at one point: use tp.vmap for many"
        )
    return leaves
