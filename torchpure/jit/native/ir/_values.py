"""Values: what a node of a program becomes. It is a view of a buffer, or a number that needs no memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch

C_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.int16: "int16_t",
    torch.int8: "int8_t",
    torch.uint8: "uint8_t",
    torch.bool: "bool",
}


class UnsupportedError(Exception):
    """The native backend does not support a program; the text says what it met. Another backend compiles it."""


SLOT = "\0"  # marks both ends of a slot: no C++ text has this character


@dataclass(eq=False, slots=True)
class Buffer:
    """Memory of one dtype. It is written by one or more kernels before it is read."""

    name: str
    dtype: torch.dtype
    size: int  # elements
    temporary: bool = True  # placed by the memory plan; else an input, output, constant or loop slice
    disjoint_writes: bool = False  # each of its writers writes other elements
    offset: int = field(default=-1)  # in bytes, in the workspace; set by the memory plan
    held: bool = False  # its memory is that of a tensor that torch makes while the program runs; set by the memory plan

    @property
    def slot(self) -> str:
        """Return the place of the buffer's pointer in the text of an `Opaque` item; `text_with` fills it."""
        return f"{SLOT}{self.name}{SLOT}"


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: elements of a buffer."""

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the elements."""
        return self.buffer.dtype


@dataclass(frozen=True, slots=True)
class Number:
    """A tensor that is one number everywhere."""

    value: Any
    shape: tuple[int, ...]
    dtype: torch.dtype


Value = View | Number


def c_type(dtype: torch.dtype) -> str:
    """Return the C++ type of a dtype.

    Raises:
        UnsupportedError: the generator has no type for it.
    """
    if dtype not in C_TYPES:
        raise UnsupportedError(f"tensors of {dtype}")
    return C_TYPES[dtype]


def dense_strides(shape: Sequence[int], order: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return strides without gaps. `order` lists the dimensions from outermost to innermost in memory.

    >>> dense_strides((2, 3)), dense_strides((2, 3), (1, 0))
    ((3, 1), (1, 2))
    """
    strides, step = [0] * len(shape), 1
    for dim in reversed(range(len(shape)) if order is None else order):
        strides[dim] = step
        step *= max(shape[dim], 1)
    return tuple(strides)


def layout_strides(traced: torch.Tensor) -> tuple[int, ...]:
    """Return the strides of a tensor in memory of its own: the traced ones, without gaps and repetitions.

    >>> layout_strides(torch.empty(3, 2).T), layout_strides(torch.empty(2, 4)[:, ::2])
    ((1, 2), (2, 1))
    """
    dense = dense_strides(traced.shape, traced_order(traced))
    sizes = zip(traced.shape, traced.stride(), dense, strict=True)
    if 0 in traced.shape or all(size == 1 or stride == other for size, stride, other in sizes):
        return tuple(traced.stride())  # those of dimensions of size 1 as well
    return dense


def traced_order(traced: torch.Tensor) -> list[int]:
    """Order the dimensions of a traced tensor as they lie in memory, outermost first; as they are if some repeat."""
    strides = traced.stride()
    if any(not stride and size > 1 for size, stride in zip(traced.shape, strides, strict=True)):
        return list(range(traced.ndim))
    return sorted(range(traced.ndim), key=lambda dim: (-strides[dim], dim))


LONG = 64  # elements of a dimension that fill vector registers well


def longest_last(shape: Sequence[int]) -> list[int]:
    """Order dimensions so that a long one is innermost in memory: the last if it is long, else the longest.

    torch's order serves large tensors: neither its kernels nor results and inputs then need another one.

    >>> longest_last((40, 5)), longest_last((5, 40)), longest_last((1000, 64))
    ([1, 0], [0, 1], [0, 1])
    """
    dims = list(range(len(shape)))
    if dims and shape[-1] < LONG:
        longest = max(dims, key=lambda dim: (shape[dim], dim))
        dims.remove(longest)
        dims.append(longest)
    return dims


def memory_order(view: View) -> list[int]:
    """Order the dimensions of a view as they lie in memory, outermost first."""
    return sorted(range(len(view.shape)), key=lambda dim: (-abs(view.strides[dim]), dim))


def reshape_view(view: View, shape: tuple[int, ...]) -> View | None:
    """View the same memory in another shape; None if strides cannot express it."""
    if prod(shape) == 0:
        return View(view.buffer, shape, dense_strides(shape), view.offset)
    old = [(size, stride) for size, stride in zip(view.shape, view.strides, strict=True) if size != 1]
    strides: list[int] = []
    at = 0
    todo = list(shape)
    chunks: list[tuple[int, int]] = []  # runs of contiguous old dimensions: (size, innermost stride)
    for size, stride in old:
        if chunks and chunks[-1][1] == size * stride:
            chunks[-1] = (chunks[-1][0] * size, stride)
        else:
            chunks.append((size, stride))
    for position, (size, stride) in enumerate(chunks):
        left, part = size, []
        while at < len(todo) and (left > 1 or (todo[at] == 1 and position == len(chunks) - 1)):
            if left % todo[at]:
                return None
            left //= todo[at]
            part.append(left * stride)
            at += 1
        if left != 1:
            return None
        strides.extend(part)
    strides.extend([1] * (len(todo) - at))
    return View(view.buffer, shape, tuple(strides), view.offset)
