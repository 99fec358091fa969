"""Trees as flat lists of their tensors, and back."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import StructureError
from torchpure.transforms.engine import expose_all

_TENSOR: Any = object()  # stands for a tensor
DescribeCaller = Callable[[], str]  # names the owner of the tree in errors


class Packed:
    """A tree without its tensors, which are flattened into a list and put back."""

    __slots__ = ("_leaves", "_structure")

    def __init__(self) -> None:
        self._leaves: list[Any] = []
        self._structure: Any = None

    def flatten(self, values: Tree, caller: DescribeCaller | None = None) -> tuple[Tensor, ...]:
        """Return the tensors of a tree, and keep the rest of it.

        A second tree must have the structure of the first; the order of keys is that of the first.

        Raises:
            StructureError: the structure differs, or only one of the trees has a tensor at some path.
        """
        leaves, structure = tree.flatten(values)
        if self._structure is not None:
            leaves = self._check_again(
                leaves, structure, values, caller or (lambda: "a function that returns several things")
            )
        else:
            self._structure = structure
            self._leaves = [_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return tuple(expose_all(leaf for leaf in leaves if isinstance(leaf, Tensor)))

    def _check_again(self, leaves: list[Any], structure: Any, values: Tree, caller: DescribeCaller) -> list[Any]:
        if structure != self._structure:
            leaves = tree.ordered(self._structure, values, caller())
        for i, (first, leaf) in enumerate(zip(self._leaves, leaves, strict=True)):
            if (first is _TENSOR) is not isinstance(leaf, Tensor):
                path, wanted = tree.paths(self._whole())[i], "a tensor" if first is _TENSOR else tree.describe(first)
                raise StructureError(f"{caller()}: at `{path}`: wanted {wanted}, got {tree.describe(leaf)}")
        return leaves

    def unflatten(self, tensors: Sequence[Any]) -> Tree:
        """Return the tree with these values instead of its tensors."""
        rest = iter(tensors)
        return tree.unflatten(self._structure, [next(rest) if leaf is _TENSOR else leaf for leaf in self._leaves])

    def match(self, caller: str, prefix: Tree) -> list[Any]:
        """Return the leaves of a prefix tree where this tree has tensors; None in it stands for a whole subtree.

        Raises:
            StructureError: the structures differ.
        """
        column = tree.align(self._structure, self._whole(), prefix, caller)
        return [value for value, leaf in zip(column, self._leaves, strict=True) if leaf is _TENSOR]

    def paths(self) -> list[str]:
        """Return the path of each tensor."""
        names = tree.paths(self._whole())
        return [name for name, leaf in zip(names, self._leaves, strict=True) if leaf is _TENSOR]

    @property
    def others(self) -> list[Any]:
        """The leaves that are no tensors."""
        return [leaf for leaf in self._leaves if leaf is not _TENSOR]

    @property
    def structure(self) -> Any:
        """The structure of the tree, which is hashable."""
        return self._structure

    def _whole(self) -> Tree:
        return tree.unflatten(self._structure, [tree.LEAF if leaf is _TENSOR else leaf for leaf in self._leaves])
