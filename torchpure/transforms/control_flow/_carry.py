"""The carry of a loop: its structure, shapes and dtypes, which the body must preserve."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import Packed
from torchpure.transforms.engine import describe_function

_NUMBERS = (bool, int, float, complex)


def as_tensors(values: Tree) -> Tree:
    """Convert the Python numbers in a tree to tensors; keep other leaves as they are."""
    if isinstance(values, Tensor):
        return values
    leaves, structure = tree.flatten(values)
    if all(isinstance(leaf, Tensor) for leaf in leaves):
        return values
    return tree.unflatten(structure, [torch.tensor(leaf) if isinstance(leaf, _NUMBERS) else leaf for leaf in leaves])


def initial_carry(caller: str, init: Tree) -> Tree:
    """Convert the Python numbers in the carry that a loop is given.

    Raises:
        TransformError: it holds an array or a number of NumPy, or a nested tensor of the strided layout.
    """
    for number, leaf in enumerate(tree.leaves(init)):
        if isinstance(leaf, np.ndarray | np.generic):
            raise TransformError(
                f"{caller}: the carry at `{tree.paths(init)[number]}` must be a tensor or a Python number, "
                f"got {tree.describe(leaf)}: convert it with torch.as_tensor"
            )
        if isinstance(leaf, Tensor) and leaf.is_nested and leaf.layout is torch.strided:
            raise TransformError(
                f"{caller}: the carry at `{tree.paths(init)[number]}` is a nested tensor, which has no shape: give it "
                "layout=torch.jagged, or pad it with torch.nested.to_padded_tensor"
            )
    return as_tensors(init)


class Carry:
    """The initial carry of a loop, against which every later carry is checked."""

    __slots__ = ("_caller", "_packed", "initial", "tensors")

    def __init__(self, caller: str, initial: Tree) -> None:
        self._caller, self.initial = caller, initial_carry(caller, initial)
        self._packed = Packed()
        self.tensors = self._packed.flatten(self.initial)

    def unflatten(self, tensors: Sequence[Tensor]) -> Tree:
        """Return a carry with these tensors."""
        return self._packed.unflatten(tensors)

    def flatten(self, fn: Callable[..., Any], value: Tree) -> tuple[Tensor, ...]:
        """Return the tensors of a carry that `fn` has returned.

        Raises:
            StructureError: its structure differs from that of the initial carry.
            TransformError: a leaf has another shape, dtype or device, or is not a tensor.
        """
        value = as_tensors(value)
        label = f"{self._caller}: {describe_function(fn)}: the carry that it returns, against the one that it is given"
        tree.check_same(self.initial, value, caller=label)
        leaves = tree.align(tree.structure(self.initial), self.initial, value, label)
        for i, (expected, got) in enumerate(zip(tree.leaves(self.initial), leaves, strict=True)):
            if not matches(expected, got):
                raise TransformError(
                    f"{self._caller}: {describe_function(fn)} must return a carry like the one that it is given: at "
                    f"`{tree.paths(self.initial)[i]}` wanted {describe_leaf(expected, got)}, "
                    f"got {describe_leaf(got, expected)}. "
                    "Convert it there, or start with one like it"
                )
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def reorder_keys(self, fn: Callable[..., Any], value: Tree) -> Tree:
        """Return a carry that `fn` has returned, with its keys in the order of the initial carry.

        Raises:
            StructureError: its structure differs from that of the initial carry.
        """
        return (
            self.unflatten(self.flatten(fn, value)) if tree.structure(value) != tree.structure(self.initial) else value
        )


def matches(expected: Any, got: Any) -> bool:
    """Tell whether two leaves have the same shape, dtype and device, or are equal if not tensors."""
    if isinstance(expected, Tensor):
        return (
            isinstance(got, Tensor)
            and expected.shape == got.shape
            and expected.dtype == got.dtype
            and expected.device == got.device
        )
    return bool(expected is got or expected == got)


def describe_leaf(leaf: Any, other: Any) -> str:
    """Describe a leaf, with its device if that differs."""
    if isinstance(leaf, Tensor) and isinstance(other, Tensor) and leaf.device != other.device:
        return f"{tree.describe(leaf)} on {leaf.device}"
    return tree.describe(leaf)
