"""The layout of a tensor: shape, strides and dtype."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """The layout of a tensor with memory of its own."""

    shape: Sequence[int]
    strides: Sequence[int]
    dtype: torch.dtype

    def empty(self) -> Tensor:
        """Return such a tensor without numbers."""
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device="meta")


Found = Layout | tuple[Layout | None, ...]  # of one result, or of several


def dense(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of memory without gaps; `order` lists the dimensions, outermost first."""
    strides, step = [0] * len(shape), 1
    for dim in reversed(order):
        strides[dim] = step
        step *= max(shape[dim], 1)
    return tuple(strides)


def row_major(shape: Sequence[int], dtype: torch.dtype) -> Layout:
    """Return a layout in row-major order."""
    return Layout(shape, dense(shape, range(len(shape))), dtype)
