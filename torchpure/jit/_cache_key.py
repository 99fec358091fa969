"""The arguments of one call: its tensors, and the key under which its program is cached."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from torchpure import tree
from torchpure.transforms.context import open_mesh_axes

from ._argnums import ArgumentSet, hash_key

_TENSOR_SLOT: Any = object()  # marks where a tensor goes


class CallArguments:
    """Split the arguments of one call into tensors and a key made of everything else."""

    __slots__ = ("_leaves", "_statics", "_structure", "key", "tensors")

    def __init__(self, static: ArgumentSet, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._statics: Any = ()
        if not (static or kwargs) and _PLAIN.issuperset(map(type, args)):  # common, and four times as fast
            self._leaves = self.tensors = list(args)
            self._structure = structure = _structure_of_tensors(len(args))
            self.key: Any = (structure, (), torch.get_default_dtype(), *_mesh_key())
            return
        if static:
            self._statics = static.values(args, kwargs)
            args, kwargs = static.without(args, kwargs)
        self._leaves, self._structure = tree.flatten((args, kwargs))
        self.tensors = [leaf for leaf in self._leaves if isinstance(leaf, Tensor)]
        static_leaves: Any = ()
        if len(self.tensors) < len(self._leaves):
            static_leaves = tuple(None if isinstance(leaf, Tensor) else hash_key(leaf) for leaf in self._leaves)
        self.key = (self._structure, static_leaves, torch.get_default_dtype(), *_mesh_key())
        if self._statics:
            self.key = (*self.key, *((where, hash_key(value)) for where, value in self._statics))

    def input_signature(self) -> Any:
        """Return the full cache key: the key, and shape, dtype, device and strides of each tensor."""
        return self.key, tuple((leaf.shape, leaf.dtype, leaf.device, leaf.stride()) for leaf in self.tensors)

    def argument_builder(self) -> Callable[[Sequence[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]:
        """Return a function that builds the arguments from other tensors. It keeps no tensor of this call alive."""
        builder = object.__new__(CallArguments)
        builder._leaves = [_TENSOR_SLOT if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        builder._statics, builder._structure = self._statics, self._structure
        return builder.arguments

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of this call, with `tensors` in the places of its own tensors."""
        remaining = iter(tensors)
        leaves = [
            next(remaining) if leaf is _TENSOR_SLOT or isinstance(leaf, Tensor) else leaf for leaf in self._leaves
        ]
        args, kwargs = tree.unflatten(self._structure, leaves)
        args = list(args)
        for where, value in self._statics:
            if isinstance(where, int):
                args[where] = value
            else:
                kwargs[where] = value
        return tuple(args), kwargs

    def positions(self, selected: ArgumentSet, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        """List which tensors of the call belong to the selected arguments."""
        is_selected = (
            [i in selected.positions for i, arg in enumerate(args) for _ in _tensors_of(arg)]
            + [name in selected.names for name, arg in kwargs.items() for _ in _tensors_of(arg)]
        )  # fmt: skip
        return [position for position, flag in enumerate(is_selected) if flag]


def _mesh_key() -> tuple[Any, ...]:
    """Return what tells the open axes of meshes apart: collectives of a program are those of its own mesh."""
    axes = open_mesh_axes()
    return tuple(axis.key for axis in axes.values()) if axes else ()


_PLAIN = frozenset({Tensor, Parameter})


@lru_cache(maxsize=64)
def _structure_of_tensors(count: int) -> Any:
    return tree.structure(((torch.empty(0),) * count, {}))


def _tensors_of(argument: Any) -> list[Tensor]:
    return [leaf for leaf in tree.leaves(argument) if isinstance(leaf, Tensor)]
