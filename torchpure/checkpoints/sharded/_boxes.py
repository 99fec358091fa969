"""Boxes: the part of a tensor that a shard is, by its offset and its shape."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Lengths = tuple[int, ...]


class Box(NamedTuple):
    """A part of a tensor."""

    offset: Lengths  # of its first element, one number a dimension
    shape: Lengths

    @property
    def numel(self) -> int:
        """The number of its elements; Python's integers do not overflow."""
        return _product(self.shape)


def whole(shape: Sequence[int]) -> Box:
    """Return the box of all of a tensor.

    >>> whole((2, 3))
    Box(offset=(0, 0), shape=(2, 3))
    """
    return Box((0,) * len(shape), tuple(shape))


def _product(shape: Lengths) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def overlap(one: Box, other: Box) -> Box | None:
    """Return the part that two boxes share; None if they share no element.

    >>> overlap(Box((0,), (4,)), Box((3,), (4,)))
    Box(offset=(3,), shape=(1,))
    """
    first = tuple(map(max, one.offset, other.offset))
    last = [min(a + n, b + m) for a, n, b, m in zip(*one, *other, strict=True)]
    shape = tuple(end - start for start, end in zip(first, last, strict=True))
    return Box(first, shape) if all(length > 0 for length in shape) else None


def copy_part(source: Tensor, place: Box, target: Tensor, wanted: Box) -> None:
    """Copy what two boxes of one tensor share, from the values of the first to those of the second."""
    shared = overlap(place, wanted)
    if shared is not None:
        _part(target, wanted, shared).copy_(_part(source, place, shared))


def _part(values: Tensor, box: Box, inner: Box) -> Tensor:
    """Return the part of a box's values that is an inner box."""
    for dim, (start, first, length) in enumerate(zip(box.offset, *inner, strict=True)):
        values = values.narrow(dim, first - start, length)
    return values


def check_cover(boxes: Sequence[Box], shape: Lengths) -> None:
    """Check that boxes are inside of a shape, and cover each of its elements once.

    Raises:
        ValueError: they do not.
    """
    for box in boxes:
        inside = len(box.offset) == len(shape) == len(box.shape) and all(
            start >= 0 and length > 0 and start + length <= size
            for start, length, size in zip(box.offset, box.shape, shape, strict=True)
        )
        if not inside:
            raise ValueError(f"a shard at {box.offset} of shape {box.shape} is no part of a tensor of shape {shape}")
    if sum(box.numel for box in boxes) != _product(shape) or _overlapping(boxes):
        raise ValueError(f"the shards of a tensor of shape {shape} do not cover each of its elements once")


def _overlapping(boxes: Sequence[Box]) -> bool:
    """Tell whether two of the boxes share an element; each is compared with all others at once."""
    if len(boxes) < 2:
        return False
    first = torch.tensor([box.offset for box in boxes], dtype=torch.int64, device="cpu")
    last = first + torch.tensor([box.shape for box in boxes], dtype=torch.int64, device="cpu")
    for number in range(len(boxes) - 1):
        meet = (first[number + 1 :] < last[number]) & (first[number] < last[number + 1 :])
        if bool(meet.all(1).any()):
            return True
    return False
