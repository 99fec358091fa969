"""One part of a Jacobian, and sums of parts.

The coordinates of a variable are indexed by axes, such as (particle, component). An axis is free, or it is tied to a
dimension of the value. A free axis is a dimension of `rows`. A tied axis is none: the derivative is zero unless the
index along the axis is the index along the dimension. So features of 16 particles, each of which depends on its own
particle, have 3 rows and not 48. The Jacobian of a variable to itself has all axes tied, and one row of ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

_MAX_PARTS = 3


@dataclass(frozen=True, slots=True)
class Part:
    """Derivatives of a value along the coordinates of one variable; immutable."""

    leaf: int  # the number of the variable
    axes: tuple[int, ...]  # sizes of the axes; their product is the number of coordinates
    ties: tuple[int | None, ...]  # for each axis the dimension of the value; None: free
    rows: Tensor  # (*free axes, *value)
    unit: bool = False  # rows are ones, and all dimensions of the value are tied or of size one

    @property
    def num_free(self) -> int:
        """The number of free axes."""
        return sum(tie is None for tie in self.ties)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return tuple(self.rows.shape[self.num_free :])

    @property
    def num_rows(self) -> int:
        """How many rows are stored."""
        return prod(self.rows.shape[: self.num_free])

    @property
    def is_dense(self) -> bool:
        """Whether no axis is tied."""
        return self.num_free == len(self.ties)


def identity_part(number: int, leaf: Tensor) -> Part:
    """Return the Jacobian of a variable to itself."""
    ties = [dim for dim, size in enumerate(leaf.shape) if size > 1]
    ones = leaf.new_ones(()).expand(leaf.shape)
    return Part(number, tuple(leaf.shape[dim] for dim in ties), tuple(ties), ones, unit=True)


def free_axis(part: Part, axis: int) -> Part:
    """Store all rows of a tied axis."""
    dim, size = part.ties[axis], part.axes[axis]
    assert dim is not None
    place, rank = sum(tie is None for tie in part.ties[:axis]), len(part.shape)
    rows = part.rows.unsqueeze(place)
    shape = [1] * rows.ndim
    shape[place] = shape[rows.ndim - rank + dim] = size
    same = torch.eye(size, dtype=torch.bool, device=rows.device).reshape(shape)
    ties = (*part.ties[:axis], None, *part.ties[axis + 1 :])
    return Part(part.leaf, part.axes, ties, torch.where(same, rows, 0))  # a product would turn 0 · ∞ into NaN


def free_part(part: Part) -> Part:
    """Store all rows of all axes."""
    for axis, tie in enumerate(part.ties):
        part = part if tie is None else free_axis(part, axis)
    return part


def expand_part(part: Part, shape: tuple[int, ...]) -> Part:
    """Broadcast the value to a shape."""
    free, old = part.rows.shape[: part.num_free], part.shape
    if old == shape:
        return part
    more = len(shape) - len(old)
    rows = part.rows.reshape(*free, *(1,) * more, *old).expand(*free, *shape)
    ties = tuple(None if tie is None else tie + more for tie in part.ties)
    return Part(part.leaf, part.axes, ties, rows)


def scale_part(part: Part, factor: Tensor | complex) -> Part:
    """Multiply by a number, or by a factor of the value's shape."""
    if part.unit and isinstance(factor, Tensor) and tuple(factor.shape) == part.shape:
        return replace(part, rows=factor, unit=False)
    return replace(part, rows=part.rows * factor, unit=False)


def refine_axes(parts: Sequence[Part]) -> list[Part]:
    """Return parts of one variable with the same axes: the finest of theirs."""
    if all(part.axes == parts[0].axes for part in parts):
        return list(parts)
    ends = sorted({end for part in parts for end in _ends(part.axes)})
    if any(end % start for start, end in zip([1, *ends], ends, strict=False)):
        return [_split(free_part(part), (prod(part.axes),)) for part in parts]
    axes = tuple(end // start for start, end in zip([1, *ends], ends, strict=False))[::-1]
    return [_split(part, axes) for part in parts]


def _ends(axes: tuple[int, ...]) -> list[int]:
    """Return the products of the last sizes."""
    return [prod(axes[start:]) for start in range(len(axes)) if axes[start] > 1] or [1]


def _split(part: Part, axes: tuple[int, ...]) -> Part:
    """Split axes so that they are these. A tied axis that would be split becomes free."""
    wanted = set(_ends(axes))
    for axis, size in enumerate(part.axes):
        inner = prod(part.axes[axis + 1 :])
        if part.ties[axis] is not None and any(inner < end < inner * size for end in wanted):
            part = free_axis(part, axis)
    ends = _ends(part.axes)
    kept = {end: tie for end, tie in zip(ends, part.ties, strict=True) if tie is not None}
    ties = tuple(kept.get(end) for end in _ends(axes))
    free = [size for size, tie in zip(axes, ties, strict=True) if tie is None]
    return replace(part, axes=axes, ties=ties, rows=part.rows.reshape(*free, *part.shape))


def merge_parts(parts: Sequence[Part]) -> list[Part]:
    """Add parts that have the same ties. Store all rows of a variable where parts would not be fewer."""
    merged = []
    for leaf in sorted({part.leaf for part in parts}):
        group = refine_axes([part for part in parts if part.leaf == leaf])
        dense = any(part.is_dense for part in group)
        for part in [free_part(part) for part in group] if dense else group:
            _add(merged, part)
        mine = [part for part in merged if part.leaf == leaf]
        if len(mine) > 1 and (len(mine) > _MAX_PARTS or sum(part.num_rows for part in mine) >= prod(mine[0].axes)):
            merged = [part for part in merged if part.leaf != leaf]
            for part in mine:
                _add(merged, free_part(part))
    return merged


def _add(parts: list[Part], part: Part) -> None:
    """Add a part to the one with the same ties, or append it."""
    for number, other in enumerate(parts):
        if (other.leaf, other.axes, other.ties) == (part.leaf, part.axes, part.ties):
            parts[number] = replace(other, rows=other.rows + part.rows, unit=False)
            return
    parts.append(part)


def dense_rows(parts: Sequence[Part], sizes: Sequence[int]) -> Tensor:
    """Return all rows, of shape (D, *value), for variables of these sizes."""
    found, shape = [], parts[0].shape
    for leaf, size in enumerate(sizes):
        mine = [free_part(part) for part in parts if part.leaf == leaf]
        flat = [part.rows.reshape(size, *shape) for part in mine]
        found.append(sum(flat[1:], flat[0]) if flat else parts[0].rows.new_zeros((size, *shape)))
    return torch.cat(found) if len(found) > 1 else found[0]


def split_rows(first: Tensor, sizes: Sequence[int]) -> list[Part]:
    """Return the parts of a Jacobian of shape (D, *value), one for each variable."""
    pieces = first.split(list(sizes)) if len(sizes) > 1 else [first]
    return [
        Part(leaf, (size,), (None,), rows)
        if size > 1
        else Part(leaf, (), (), rows[0])  # a variable of one coordinate has no axes
        for leaf, (size, rows) in enumerate(zip(sizes, pieces, strict=True))
    ]
