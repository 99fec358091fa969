"""Where the members of a vmap meet: sums, means, maxima and gathers over a named axis.

Each member knows its index, a tensor that is mapped over this axis and no other. It goes into every meeting: the rule
for vmap that finds it mapped is the one of this axis, however many transforms are in between.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError

from ._around import axes, axis_open, met, replaced_over
from ._operation import differentiable


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
    if axis_name not in axes():
        known = ", ".join(map(repr, axes())) or "none"
        raise TransformError(
            f"{who}: there is no axis {axis_name!r} here (axes: {known}): name it in vmap(fn, axis_name={axis_name!r})"
        )
    return axes()[axis_name]


def _meeting(who: str, axis_name: str) -> tuple[Tensor, int]:
    found = _found(who, axis_name)
    if replaced_over(axis_name):
        raise TransformError(
            f"{who}: in a derivative members of axis {axis_name!r} meet that have chosen different branches, which are "
            "not known to meet from the branch itself: choose with torch.where"
        )
    met(axis_name)
    return found


def axis_index(axis_name: str) -> Tensor:
    """Return the member's own index on an axis of a vmap: an int64 tensor of shape ().

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x + axis_index("member"), axis_name="member")(torch.zeros(3))
    tensor([0., 1., 2.])
    """
    return _found("axis_index", axis_name)[0].clone()


def psum(values: Tree, axis_name: str) -> Tree:
    """Sum each tensor over the members of an axis; every member gets the sum.

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x / psum(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([0.2500, 0.7500])
    """
    index, _ = _meeting("psum", axis_name)
    return tree.map(lambda leaf: _Sum.apply(_tensor("psum", leaf), index), values)


def pmean(values: Tree, axis_name: str) -> Tree:
    """Average each tensor over the members of an axis; every member gets the mean.

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmean(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([-1., 1.])
    """
    index, size = _meeting("pmean", axis_name)
    return tree.map(lambda leaf: _Sum.apply(_tensor("pmean", leaf), index) / size, values)


def all_gather(values: Tree, axis_name: str) -> Tree:
    """Stack each tensor of all members, at dimension 0; every member gets the stack.

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: (all_gather(x, "member") - x).abs().max(), axis_name="member")(torch.tensor([1.0, 4.0, 9.0]))
    tensor([8., 5., 8.])
    """
    index, size = _meeting("all_gather", axis_name)
    return tree.map(lambda leaf: _Gather.apply(_tensor("all_gather", leaf), index, size), values)


def pmax(values: Tree, axis_name: str) -> Tree:
    """Take the greatest of all members, entry by entry; the derivative is shared evenly between equal ones.

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmax(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([-2., 0.])
    """
    return tree.map(lambda leaf: leaf.amax(0), all_gather(values, axis_name))


def pmin(values: Tree, axis_name: str) -> Tree:
    """Take the least of all members, entry by entry; the derivative is shared evenly between equal ones.

    Raises:
        TransformError: no vmap around has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmin(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([0., 2.])
    """
    return tree.map(lambda leaf: leaf.amin(0), all_gather(values, axis_name))


def _tensor(who: str, leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor):
        raise TransformError(f"{who}: wanted tensors, got {tree.describe(leaf)}")
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
