"""One call: its tensors, and all else that tells it from other calls."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure import tree

from ._argnums import Chosen, frozen

_HERE: Any = object()  # the place of a tensor


class Call:
    """The arguments of one call, taken apart."""

    __slots__ = ("_leaves", "_statics", "_structure", "key", "tensors")

    def __init__(self, static: Chosen, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._statics: Any = ()
        if static:
            self._statics = static.values(args, kwargs)
            args, kwargs = static.without(args, kwargs)
        self._leaves, self._structure = tree.flatten((args, kwargs))
        self.tensors = [leaf for leaf in self._leaves if isinstance(leaf, Tensor)]
        others: Any = ()
        if len(self.tensors) < len(self._leaves):
            others = tuple(None if isinstance(leaf, Tensor) else frozen(leaf) for leaf in self._leaves)
        self.key: Any = (self._structure, others, torch.get_default_dtype())
        if self._statics:
            self.key = (*self.key, *((where, frozen(held)) for where, held in self._statics))

    def kind(self) -> Any:
        """Return what tells the program for this call from others."""
        return self.key, tuple((leaf.shape, leaf.dtype, leaf.device, leaf.stride()) for leaf in self.tensors)

    def without_tensors(self) -> Callable[[Sequence[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]:
        """Return what makes arguments of other tensors, and does not keep these."""
        other = object.__new__(Call)
        other._leaves = [_HERE if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        other._statics, other._structure = self._statics, self._structure
        return other.arguments

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with other tensors in the places of theirs."""
        rest = iter(tensors)
        leaves = [next(rest) if leaf is _HERE or isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = tree.unflatten(self._structure, leaves)
        args = list(args)
        for where, held in self._statics:
            if isinstance(where, int):
                args[where] = held
            else:
                kwargs[where] = held
        return tuple(args), kwargs

    def places(self, chosen: Chosen, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        """List the places, among the tensors, of those of some arguments."""
        marked = (
            [i in chosen.places for i, arg in enumerate(args) for _ in _tensors(arg)]
            + [name in chosen.names for name, arg in kwargs.items() for _ in _tensors(arg)]
        )  # fmt: skip
        return [place for place, is_chosen in enumerate(marked) if is_chosen]


def _tensors(argument: Any) -> list[Tensor]:
    return [leaf for leaf in tree.leaves(argument) if isinstance(leaf, Tensor)]
