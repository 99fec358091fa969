"""The functions that users give to loops and branches: what goes in and out of them, and what is wrong with it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import Packed
from torchpure.transforms.engine import describe_function

_NUMBERS = (bool, int, float, complex)


def as_tensors(values: Tree) -> Tree:
    """Make tensors of the numbers in a tree; everything else stays as it is."""
    if isinstance(values, Tensor):
        return values
    leaves, structure = tree.flatten(values)
    if all(isinstance(leaf, Tensor) for leaf in leaves):
        return values
    return tree.unflatten(structure, [torch.tensor(leaf) if isinstance(leaf, _NUMBERS) else leaf for leaf in leaves])


class Carry:
    """A value that a function takes and gives back, of one structure, shapes and dtypes."""

    __slots__ = ("_packed", "_who", "first", "tensors")

    def __init__(self, who: str, first: Tree) -> None:
        self._who, self.first = who, as_tensors(first)
        self._packed = Packed()
        self.tensors = self._packed.take(self.first)

    def put(self, tensors: Sequence[Tensor]) -> Tree:
        """Return the value of these tensors."""
        return self._packed.put(tensors)

    def take(self, fn: Callable[..., Any], value: Tree) -> tuple[Tensor, ...]:
        """Return the tensors of a value that `fn` has given back.

        Raises:
            StructureError: it has another structure.
            TransformError: a leaf has another shape, dtype or device, or is no tensor.
        """
        value = as_tensors(value)
        who = f"{self._who}: {describe_function(fn)}: the carry that it returns, against the one that it is given"
        tree.check_same(self.first, value, who=who)
        leaves = tree.align(tree.structure(self.first), self.first, value, who)
        for i, (wanted, got) in enumerate(zip(tree.leaves(self.first), leaves, strict=True)):
            if not alike(wanted, got):
                raise TransformError(
                    f"{self._who}: {describe_function(fn)} must return a carry like the one that it is given: at "
                    f"`{tree.paths(self.first)[i]}` wanted {described(wanted, got)}, got {described(got, wanted)}. "
                    "Convert it there, or begin with one like it"
                )
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def arranged(self, fn: Callable[..., Any], value: Tree) -> Tree:
        """Return a value that `fn` has given back with its keys in the order of the first.

        Raises:
            StructureError: it has another structure.
        """
        return self.put(self.take(fn, value)) if tree.structure(value) != tree.structure(self.first) else value


def alike(wanted: Any, got: Any) -> bool:
    """Tell whether a leaf can stand where another one stood."""
    if isinstance(wanted, Tensor):
        return (
            isinstance(got, Tensor)
            and wanted.shape == got.shape
            and wanted.dtype == got.dtype
            and wanted.device == got.device
        )
    return bool(wanted is got or wanted == got)


def described(leaf: Any, other: Any) -> str:
    """Describe a leaf; with its device where that is what differs."""
    if isinstance(leaf, Tensor) and isinstance(other, Tensor) and leaf.device != other.device:
        return f"{tree.describe(leaf)} on {leaf.device}"
    return tree.describe(leaf)
