"""Collectives over a named axis of `vmap`.

Each member has an index: a tensor that is batched over this axis and over no other. It is an input of every collective.
The vmap rule that finds the index batched belongs to this axis, however many transforms are in between.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import differentiable


class VmapAxis:
    """A named axis of a vmap, for the member that runs."""

    __slots__ = ("_index", "size")

    def __init__(self, index: Tensor, size: int) -> None:
        self._index, self.size = index, size

    def index(self) -> Tensor:
        """Return the index of the member."""
        return self._index.clone()

    def sum_all(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        """Sum each tensor over the members."""
        return [_PSum.apply(leaf, self._index) for leaf in leaves]

    def gather(self, leaf: Tensor) -> Tensor:
        """Stack the tensors of all members at dimension 0."""
        return _AllGather.apply(leaf, self._index, self.size)

    def scatter_sum(self, leaf: Tensor) -> Tensor:
        """Sum over the members, and return the row of this member."""
        return _PSum.apply(leaf, self._index).index_select(0, self._index.reshape(1)).squeeze(0)

    def permute(self, leaf: Tensor, sources: Sequence[int]) -> Tensor:
        """Return the tensor of the member that sends to this one, or zeros if none does (source -1)."""
        source = torch.tensor(sources, device=self._index.device).index_select(0, self._index.reshape(1))
        sent = self.gather(leaf).index_select(0, source.clamp(min=0)).squeeze(0)
        return torch.where(source.squeeze(0) >= 0, sent, torch.zeros_like(sent))

    def exchange(self, leaf: Tensor) -> Tensor:
        """Send row i to member i; return what members sent to this one, in their order."""
        return self.gather(leaf).index_select(1, self._index.reshape(1)).squeeze(1)


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
        # cloned: a tangent may be written to, and must not be expanded
        return (x.expand(size, *x.shape).clone() if dim is None else x.movedim(dim, 0)), None
