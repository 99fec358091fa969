"""Collectives over a named axis of `vmap`: sums, means, maxima, minima and gathers.

Each member has an index: a tensor that is batched over this axis and over no other. It is an input of every collective.
The vmap rule that finds the index batched belongs to this axis, however many transforms are in between.
"""

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import T, Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import differentiable
from torchpure.transforms.context import (
    collapsed_axes,
    has_substituted_operands,
    open_axes,
    open_axis,
    record_collective,
)

Names = str | tuple[str, ...]  # the name of one axis, or the names of several


class Axis:
    """A named axis of a vmap."""

    __slots__ = ("_name", "_size")

    def __init__(self, name: str, size: int) -> None:
        if name in open_axes():
            raise TransformError(f"vmap: axis_name {name!r} is taken by a vmap around this one: choose another name")
        self._name, self._size = name, size

    def open(self, index: Tensor) -> AbstractContextManager[None]:
        """Open the axis inside of the block, so that collectives can use it."""
        return open_axis(self._name, index, self._size)


def _lookup_axis(caller: str, axis_name: str) -> tuple[Tensor, int]:
    if axis_name in open_axes():
        return open_axes()[axis_name]
    if axis_name in collapsed_axes():
        raise TransformError(
            f"{caller}: the rule of a custom_vmap has all members of axis {axis_name!r} at once: use their dimension 0"
        )
    names = ", ".join(map(repr, open_axes())) or "none"
    raise TransformError(
        f"{caller}: there is no axis {axis_name!r} here (axes: {names}): name it in vmap(fn, axis_name={axis_name!r})"
    )


def _lookup_axes(caller: str, axis_name: Names) -> list[tuple[Tensor, int]]:
    """Return the index of the member, and the number of members, for each of these axes."""
    if isinstance(axis_name, str):
        return [_lookup_axis(caller, axis_name)]
    if not isinstance(axis_name, tuple | list) or not all(isinstance(name, str) for name in axis_name):
        raise TransformError(
            f"{caller}: wanted the name of an axis or a tuple of names, got {tree.describe(axis_name)}"
        )
    if len(set(axis_name)) < len(axis_name):
        raise TransformError(f"{caller}: an axis is named twice in {axis_name!r}: name each one once")
    return [_lookup_axis(caller, name) for name in axis_name]


def _begin_collective(caller: str, axis_name: Names) -> list[tuple[Tensor, int]]:
    axes = _lookup_axes(caller, axis_name)
    for name in [axis_name] if isinstance(axis_name, str) else axis_name:
        if has_substituted_operands(name):
            raise TransformError(
                f"{caller}: this collective over axis {name!r} runs only in the derivative of a branch, and members "
                "chose different branches: choose with torch.where"
            )
        record_collective(name)
    return axes


def axis_index(axis_name: Names) -> Tensor:
    """Return the index of the member on an axis of a `vmap`: an int64 tensor of shape ().

    On a tuple of axes, the index counts along the last axis first.

    Raises:
        TransformError: no enclosing `vmap` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x + axis_index("member"), axis_name="member")(torch.zeros(3))
    tensor([0., 1., 2.])
    """
    axes = _lookup_axes("axis_index", axis_name)
    total = axes[0][0].clone() if axes else torch.zeros((), dtype=torch.int64)
    for index, size in axes[1:]:
        total = total * size + index
    return total


def psum(values: T, axis_name: Names) -> T:
    """Sum each tensor over the members of an axis, or of a tuple of axes; every member gets the sum.

    A number is the same for all members: the sum of 1 is the number of members.

    Raises:
        TransformError: no enclosing `vmap` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x / psum(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([0.2500, 0.7500])
    """
    axes = _begin_collective("psum", axis_name)
    return tree.map(lambda leaf: _psum_leaf("psum", leaf, axes), values)


def pmean(values: T, axis_name: Names) -> T:
    """Average each tensor over the members of an axis, or of a tuple of axes; every member gets the mean.

    Raises:
        TransformError: no enclosing `vmap` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmean(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([-1., 1.])
    """
    axes = _begin_collective("pmean", axis_name)
    count = math.prod(size for _, size in axes)
    return tree.map(lambda leaf: _psum_leaf("pmean", leaf, axes) / count, values)


def all_gather(values: Tree, axis_name: Names) -> Tree:
    """Stack each tensor over all members at dimension 0; every member gets the stack.

    Members of a tuple of axes share one dimension, in the order of `axis_index`.

    Raises:
        TransformError: no enclosing `vmap` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: (all_gather(x, "member") - x).abs().max(), axis_name="member")(torch.tensor([1.0, 4.0, 9.0]))
    tensor([8., 5., 8.])
    """
    axes = _begin_collective("all_gather", axis_name)
    return tree.map(lambda leaf: _all_gather_leaf("all_gather", leaf, axes), values)


def pmax(values: T, axis_name: Names) -> T:
    """Take the maximum over the members of an axis, or of a tuple of axes, for each entry.

    Equal maxima share the derivative evenly.

    Raises:
        TransformError: no enclosing `vmap` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmax(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([-2., 0.])
    """
    axes = _begin_collective("pmax", axis_name)
    return tree.map(lambda leaf: leaf if _is_number(leaf) else _all_gather_leaf("pmax", leaf, axes).amax(0), values)


def pmin(values: T, axis_name: Names) -> T:
    """Take the minimum over the members of an axis, or of a tuple of axes, for each entry.

    Equal minima share the derivative evenly.

    Raises:
        TransformError: no enclosing `vmap` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmin(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([0., 2.])
    """
    axes = _begin_collective("pmin", axis_name)
    return tree.map(lambda leaf: leaf if _is_number(leaf) else _all_gather_leaf("pmin", leaf, axes).amin(0), values)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float | complex)


def _psum_leaf(caller: str, leaf: Any, axes: list[tuple[Tensor, int]]) -> Any:
    if _is_number(leaf):
        return leaf * math.prod(size for _, size in axes)
    leaf = _check_tensor(caller, leaf)
    for index, _ in axes:
        leaf = _PSum.apply(leaf, index)
    return leaf


def _all_gather_leaf(caller: str, leaf: Any, axes: list[tuple[Tensor, int]]) -> Tensor:
    leaf = torch.as_tensor(leaf) if _is_number(leaf) else _check_tensor(caller, leaf)
    if not axes:
        return leaf.unsqueeze(0)
    for index, size in reversed(axes):
        leaf = _AllGather.apply(leaf, index, size)
    return leaf.flatten(0, len(axes) - 1) if len(axes) > 1 else leaf


def _check_tensor(caller: str, leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor):
        raise TransformError(f"{caller}: wanted tensors or numbers, got {tree.describe(leaf)}")
    return leaf


class _PSum(torch.autograd.Function):
    """The sum over an axis, which is its own derivative, forward and backward."""

    @staticmethod
    def forward(x: Tensor, index: Tensor) -> Tensor:
        raise AssertionError("the vmap rule handles every call")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return _PSum.apply(grads[0], *ctx.saved_tensors), None

    @staticmethod
    @differentiable
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _PSum.apply(tangent, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int | None]:
        (x, index), dim = args, in_dims[0]
        if in_dims[1] is None:  # this vmap is not the one of the axis
            return _PSum.apply(x, index), dim
        return (x * info.batch_size if dim is None else x.sum(dim)), None


class _AllGather(torch.autograd.Function):
    """The stack of all members; its transpose gives each member the sum of all cotangents for its row."""

    @staticmethod
    def forward(x: Tensor, index: Tensor, size: int) -> Tensor:
        raise AssertionError("the vmap rule handles every call")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.size = inputs[2]
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return _PSum.apply(grads[0], index).index_select(0, index.reshape(1)).squeeze(0), None, None

    @staticmethod
    @differentiable
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _AllGather.apply(tangent, *ctx.saved_tensors, ctx.size)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int | None]:
        (x, index, size), dim = args, in_dims[0]
        if in_dims[1] is None:  # this vmap is not the one of the axis
            return _AllGather.apply(x.movedim(dim, 0), index, size), 1
        return (x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)), None
