"""Where the members of a vmap meet: sums, means, maxima and gathers over a named axis.

Each member knows its index, a tensor that is mapped over this axis and no other. It goes into every meeting: the rule
for vmap that finds it mapped is the one of this axis, however many transforms are in between.
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
from torchpure.transforms.context import axes, axis_open, gone, met, replaced_over

Names = str | tuple[str, ...]  # of an axis, or of several


class Axis:
    """A named axis of a vmap."""

    __slots__ = ("_name", "_size")

    def __init__(self, name: str, size: int) -> None:
        if name in axes():
            raise TransformError(f"vmap: axis_name {name!r} is taken by a vmap around this one: choose another name")
        self._name, self._size = name, size

    def open(self, index: Tensor) -> AbstractContextManager[None]:
        """Let members meet over this axis."""
        return axis_open(self._name, index, self._size)


def _found(who: str, axis_name: str) -> tuple[Tensor, int]:
    if axis_name in axes():
        return axes()[axis_name]
    if axis_name in gone():
        raise TransformError(
            f"{who}: the rule of a custom_vmap has all members of axis {axis_name!r} at once: use their dimension 0"
        )
    known = ", ".join(map(repr, axes())) or "none"
    raise TransformError(
        f"{who}: there is no axis {axis_name!r} here (axes: {known}): name it in vmap(fn, axis_name={axis_name!r})"
    )


def _indices(who: str, axis_name: Names) -> list[tuple[Tensor, int]]:
    """Return a member's index on each of these axes, and the number of members."""
    if isinstance(axis_name, str):
        return [_found(who, axis_name)]
    if not isinstance(axis_name, tuple | list) or not all(isinstance(name, str) for name in axis_name):
        raise TransformError(f"{who}: wanted the name of an axis or a tuple of names, got {tree.describe(axis_name)}")
    if len(set(axis_name)) < len(axis_name):
        raise TransformError(f"{who}: an axis is named twice in {axis_name!r}: name each one once")
    return [_found(who, name) for name in axis_name]


def _meeting(who: str, axis_name: Names) -> list[tuple[Tensor, int]]:
    found = _indices(who, axis_name)
    for name in [axis_name] if isinstance(axis_name, str) else axis_name:
        if replaced_over(name):
            raise TransformError(
                f"{who}: in a derivative members of axis {name!r} meet that have chosen different branches, which are "
                "not known to meet from the branch itself: choose with torch.where"
            )
        met(name)
    return found


def axis_index(axis_name: Names) -> Tensor:
    """Return the member's own index on an axis of a vmap: an int64 tensor of shape ().

    On a tuple of axes members are counted along the last one first.

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x + axis_index("member"), axis_name="member")(torch.zeros(3))
    tensor([0., 1., 2.])
    """
    found = _indices("axis_index", axis_name)
    total = found[0][0].clone() if found else torch.zeros((), dtype=torch.int64)
    for index, size in found[1:]:
        total = total * size + index
    return total


def psum(values: T, axis_name: Names) -> T:
    """Sum each tensor over the members of an axis, or of a tuple of axes; every member gets the sum.

    A number is the same for all: the sum of 1 is how many members there are.

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x / psum(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([0.2500, 0.7500])
    """
    found = _meeting("psum", axis_name)
    return tree.map(lambda leaf: _sum("psum", leaf, found), values)


def pmean(values: T, axis_name: Names) -> T:
    """Average each tensor over the members of an axis, or of a tuple of axes; every member gets the mean.

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmean(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([-1., 1.])
    """
    found = _meeting("pmean", axis_name)
    count = math.prod(size for _, size in found)
    return tree.map(lambda leaf: _sum("pmean", leaf, found) / count, values)


def all_gather(values: Tree, axis_name: Names) -> Tree:
    """Stack each tensor of all members, at dimension 0; every member gets the stack.

    Members of a tuple of axes are in one dimension, in the order of `axis_index`.

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: (all_gather(x, "member") - x).abs().max(), axis_name="member")(torch.tensor([1.0, 4.0, 9.0]))
    tensor([8., 5., 8.])
    """
    found = _meeting("all_gather", axis_name)
    return tree.map(lambda leaf: _gathered("all_gather", leaf, found), values)


def pmax(values: T, axis_name: Names) -> T:
    """Take the greatest of all members of an axis, or of a tuple of axes, entry by entry.

    The derivative is shared evenly between equal ones.

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmax(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([-2., 0.])
    """
    found = _meeting("pmax", axis_name)
    return tree.map(lambda leaf: leaf if _is_number(leaf) else _gathered("pmax", leaf, found).amax(0), values)


def pmin(values: T, axis_name: Names) -> T:
    """Take the least of all members of an axis, or of a tuple of axes, entry by entry.

    The derivative is shared evenly between equal ones.

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmin(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([0., 2.])
    """
    found = _meeting("pmin", axis_name)
    return tree.map(lambda leaf: leaf if _is_number(leaf) else _gathered("pmin", leaf, found).amin(0), values)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float | complex)


def _sum(who: str, leaf: Any, found: list[tuple[Tensor, int]]) -> Any:
    if _is_number(leaf):
        return leaf * math.prod(size for _, size in found)
    leaf = _tensor(who, leaf)
    for index, _ in found:
        leaf = _Sum.apply(leaf, index)
    return leaf


def _gathered(who: str, leaf: Any, found: list[tuple[Tensor, int]]) -> Tensor:
    leaf = torch.as_tensor(leaf) if _is_number(leaf) else _tensor(who, leaf)
    if not found:
        return leaf.unsqueeze(0)
    for index, size in reversed(found):
        leaf = _Gather.apply(leaf, index, size)
    return leaf.flatten(0, len(found) - 1) if len(found) > 1 else leaf


def _tensor(who: str, leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor):
        raise TransformError(f"{who}: wanted tensors or numbers, got {tree.describe(leaf)}")
    return leaf


class _Sum(torch.autograd.Function):
    """The sum over an axis: its own derivative, forwards and backwards."""

    @staticmethod
    def forward(x: Tensor, index: Tensor) -> Tensor:
        raise AssertionError("the rule for vmap comes first")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return _Sum.apply(grads[0], *ctx.saved_tensors), None

    @staticmethod
    @differentiable
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _Sum.apply(tangent, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int | None]:
        (x, index), dim = args, in_dims[0]
        if in_dims[1] is None:  # the axis of another vmap
            return _Sum.apply(x, index), dim
        return (x * info.batch_size if dim is None else x.sum(dim)), None


class _Gather(torch.autograd.Function):
    """The stack of all members; its transpose gives each member the sum of what all have for it."""

    @staticmethod
    def forward(x: Tensor, index: Tensor, size: int) -> Tensor:
        raise AssertionError("the rule for vmap comes first")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.size = inputs[2]
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return _Sum.apply(grads[0], index).index_select(0, index.reshape(1)).squeeze(0), None, None

    @staticmethod
    @differentiable
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _Gather.apply(tangent, *ctx.saved_tensors, ctx.size)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int | None]:
        (x, index, size), dim = args, in_dims[0]
        if in_dims[1] is None:  # the axis of another vmap
            return _Gather.apply(x.movedim(dim, 0), index, size), 1
        return (x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)), None
