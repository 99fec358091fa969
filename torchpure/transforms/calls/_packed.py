"""Trees packed into flat lists of tensors, and back."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import StructureError
from torchpure.transforms.engine import expose_all

_HERE: Any = object()  # the place of a tensor
Who = Callable[[], str]  # says in errors whose tree it is


class Packed:
    """A tree of which the tensors are taken out and put back."""

    __slots__ = ("_leaves", "_structure")

    def __init__(self) -> None:
        self._leaves: list[Any] = []
        self._structure: Any = None

    def take(self, values: Tree, who: Who | None = None) -> tuple[Tensor, ...]:
        """Return the tensors of a tree, and remember it.

        Where there was a tree before this one must be like it, but for the order of keys; that of the first stays.

        Raises:
            StructureError: it has another structure, or a tensor where the first has none, or the other way round.
        """
        leaves, structure = tree.flatten(values)
        if self._structure is not None:
            leaves = self._again(leaves, structure, values, who or (lambda: "a function that returns several things"))
        else:
            self._structure = structure
            self._leaves = [_HERE if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return tuple(expose_all(leaf for leaf in leaves if isinstance(leaf, Tensor)))

    def _again(self, leaves: list[Any], structure: Any, values: Tree, who: Who) -> list[Any]:
        if structure != self._structure:
            leaves = tree.ordered(self._structure, values, who())
        for i, (first, leaf) in enumerate(zip(self._leaves, leaves, strict=True)):
            if (first is _HERE) is not isinstance(leaf, Tensor):
                path, wanted = tree.paths(self._whole())[i], "a tensor" if first is _HERE else tree.describe(first)
                raise StructureError(f"{who()}: at `{path}`: wanted {wanted}, got {tree.describe(leaf)}")
        return leaves

    def put(self, tensors: Sequence[Any]) -> Tree:
        """Return the tree with other values in the places of its tensors."""
        rest = iter(tensors)
        return tree.unflatten(self._structure, [next(rest) if leaf is _HERE else leaf for leaf in self._leaves])

    def match(self, who: str, other: Tree) -> list[Any]:
        """List what a tree of the same structure, or with None for a part of it, holds in the places of the tensors.

        Raises:
            StructureError: the structures differ.
        """
        column = tree.align(self._structure, self._whole(), other, who)
        return [value for value, leaf in zip(column, self._leaves, strict=True) if leaf is _HERE]

    def paths(self) -> list[str]:
        """Name each tensor."""
        names = tree.paths(self._whole())
        return [name for name, leaf in zip(names, self._leaves, strict=True) if leaf is _HERE]

    @property
    def structure(self) -> Any:
        """The structure of the tree: hashable."""
        return self._structure

    def _whole(self) -> Tree:
        return tree.unflatten(self._structure, [tree.LEAF if leaf is _HERE else leaf for leaf in self._leaves])
