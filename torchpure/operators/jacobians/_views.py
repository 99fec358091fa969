"""Views: which dimensions of the result are dimensions of the operand. Read from the strides of an empty tensor."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms import vmap

from ._parts import Part, free_axis

Call = Callable[[Tensor], Sequence[Tensor]]
IS_VIEW = frozenset(
    {"reshape", "view", "view_as", "reshape_as", "flatten", "unflatten", "ravel", "transpose", "permute", "movedim"}
    | {"moveaxis", "swapaxes", "swapdims", "t", "squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to"}
    | {"__getitem__", "select", "narrow", "split", "chunk", "unbind", "tensor_split", "__get__", "adjoint", "slice"}
)


def view_part(part: Part, call: Call) -> list[Part]:
    """Return the Jacobians of the results of a view. An axis whose dimension is lost becomes free."""
    probe = torch.empty(part.shape, dtype=part.rows.dtype, device="meta")
    results = [(tuple(out.shape), out.stride()) for out in call(probe)]
    lost = [
        axis
        for axis, tie in enumerate(part.ties)
        if tie is not None and not all(_places(part.shape, tie, *result) for result in results)
    ]
    for axis in lost:
        part = free_axis(part, axis)
    return [_mapped(part, rows, *result) for rows, result in zip(_each_row(part, call), results, strict=True)]


def _mapped(part: Part, rows: Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> Part:
    axes: list[int] = []
    ties: list[int | None] = []
    for size, tie in zip(part.axes, part.ties, strict=True):
        places = [None] if tie is None else _places(part.shape, tie, shape, strides)
        ties.extend(places)
        axes.extend(size if place is None else shape[place] for place in places)
    unit = part.unit and prod(shape) == prod(part.shape)
    return Part(part.leaf, tuple(axes), tuple(ties), rows, unit)


def _places(old: tuple[int, ...], dim: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    """Return the dimensions of the result that make up a dimension of the operand; none if it is not whole."""
    step = prod(old[dim + 1 :])
    inside = [
        (stride, place)
        for place, (size, stride) in enumerate(zip(shape, strides, strict=True))
        if size > 1 and step <= stride and stride * size <= step * old[dim]
    ]
    places = [place for _, place in sorted(inside, reverse=True)]
    return places if prod(shape[place] for place in places) == old[dim] else []


def _each_row(part: Part, call: Call) -> Sequence[Tensor]:
    """Apply the view to each row."""
    free = part.rows.shape[: part.num_free]
    if not free:
        return call(part.rows)
    outs: Any = vmap(lambda row: tuple(call(row)))(part.rows.reshape(prod(free), *part.shape))
    return [out.reshape(*free, *out.shape[1:]) for out in outs]
