"""Collectives over named axes, of `vmap` and of the meshes of `shard_map`: sums, extrema, gathers, exchanges."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import T, Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import hint_keywords

from ._axes import NamedAxis, Names, begin_collective, lookup_axes


def axis_index(axis_name: Names) -> Tensor:
    """Return the index of the member of a `vmap`, or of the process of a mesh: an int64 tensor of shape ().

    On a tuple of axes, the index counts along the last axis first.

    Raises:
        TransformError: no enclosing `vmap` or `shard_map` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x + axis_index("member"), axis_name="member")(torch.zeros(3))
    tensor([0., 1., 2.])
    """
    axes = lookup_axes("axis_index", axis_name)
    total = axes[0].index() if axes else torch.zeros((), dtype=torch.int64)
    for axis in axes[1:]:
        total = total * axis.size + axis.index()
    return total


def axis_size(axis_name: Names) -> int:
    """Return the number of members of an axis, or of a tuple of axes.

    Raises:
        TransformError: no enclosing `vmap` or `shard_map` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x / axis_size("member"), axis_name="member")(torch.ones(2))
    tensor([0.5000, 0.5000])
    """
    return math.prod(axis.size for axis in lookup_axes("axis_size", axis_name))


def psum(values: T, axis_name: Names) -> T:
    """Sum each tensor over the members of an axis, or of a tuple of axes; every member gets the sum.

    A number is the same for all members: the sum of 1 is the number of members.

    Raises:
        TransformError: no enclosing `vmap` or `shard_map` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x / psum(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([0.2500, 0.7500])
    """
    return _sums("psum", values, begin_collective("psum", axis_name))


def pmean(values: T, axis_name: Names) -> T:
    """Average each tensor over the members of an axis, or of a tuple of axes; every member gets the mean.

    Raises:
        TransformError: no enclosing `vmap` or `shard_map` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmean(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([-1., 1.])
    """
    axes = begin_collective("pmean", axis_name)
    count = math.prod(axis.size for axis in axes)
    return tree.map(lambda leaf: leaf / count, _sums("pmean", values, axes))


def pmax(values: T, axis_name: Names) -> T:
    """Take the maximum over the members of an axis, or of a tuple of axes, for each entry.

    Equal maxima share the derivative evenly.

    Raises:
        TransformError: no enclosing `vmap` or `shard_map` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmax(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([-2., 0.])
    """
    axes = begin_collective("pmax", axis_name)
    return tree.map(lambda leaf: leaf if _is_number(leaf) else _stack("pmax", leaf, axes).amax(0), values)


def pmin(values: T, axis_name: Names) -> T:
    """Take the minimum over the members of an axis, or of a tuple of axes, for each entry.

    Equal minima share the derivative evenly.

    Raises:
        TransformError: no enclosing `vmap` or `shard_map` has an axis of this name.

    >>> from torchpure import vmap
    >>> vmap(lambda x: x - pmin(x, "member"), axis_name="member")(torch.tensor([1.0, 3.0]))
    tensor([0., 2.])
    """
    axes = begin_collective("pmin", axis_name)
    return tree.map(lambda leaf: leaf if _is_number(leaf) else _stack("pmin", leaf, axes).amin(0), values)


@hint_keywords(axis="write dim", axis_index_groups="split the axis in two: make_mesh((2, 4), ('outer', 'inner'))")
def all_gather(values: Tree, axis_name: Names, *, dim: int = 0, tiled: bool = False) -> Tree:
    """Stack each tensor over all members at dimension `dim`; every member gets the stack.

    Members of a tuple of axes share one dimension, in the order of `axis_index`. With `tiled`, the tensors are
    concatenated along `dim` instead.

    Raises:
        TransformError: no enclosing `vmap` or `shard_map` has an axis of this name, or a tensor has no such dimension.

    >>> from torchpure import vmap
    >>> vmap(lambda x: (all_gather(x, "member") - x).abs().max(), axis_name="member")(torch.tensor([1.0, 4.0, 9.0]))
    tensor([8., 5., 8.])
    """
    axes = begin_collective("all_gather", axis_name)

    def gather(leaf: Any) -> Tensor:
        stacked = _stack("all_gather", leaf, axes)
        place = _dim("all_gather", dim, stacked.ndim - tiled, leaf)
        moved = stacked.movedim(0, place)
        return moved.flatten(place, place + 1) if tiled else moved

    return tree.map(gather, values)


def psum_scatter(values: Tree, axis_name: Names, *, scatter_dim: int = 0, tiled: bool = False) -> Tree:
    """Sum each tensor over the members of an axis; each member gets its own row of the sum along `scatter_dim`.

    The dimension has a row for each member, and is removed. With `tiled`, it is split into equal parts, and each
    member gets its part.

    Law: `psum_scatter(x, axis)` is `psum(x, axis)[axis_index(axis)]`.

    Raises:
        TransformError: there is no such axis or dimension, or its size does not fit the number of members.

    >>> from torchpure import vmap
    >>> vmap(lambda x: psum_scatter(x, "member"), axis_name="member")(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([4., 6.])
    """
    axes = begin_collective("psum_scatter", axis_name)

    def scatter(leaf: Any) -> Tensor:
        place = _dim("psum_scatter", scatter_dim, _check_tensor("psum_scatter", leaf).ndim, leaf)
        rows = _split("psum_scatter", leaf, place, axes, tiled).movedim(place, 0)
        part = rows.unflatten(0, [axis.size for axis in axes]) if axes else rows[0]
        for axis in axes:
            part = axis.scatter_sum(part)
        return part.movedim(0, place) if tiled else part

    return tree.map(scatter, values)


def ppermute(values: T, axis_name: str, perm: Sequence[tuple[int, int]]) -> T:
    """Send each tensor along pairs (source, target) of members; who is no target gets zeros.

    Raises:
        TransformError: there is no such axis, or a source or target is named twice, or is no member.

    >>> from torchpure import vmap
    >>> shift = [(0, 1), (1, 2)]
    >>> vmap(lambda x: ppermute(x, "member", shift), axis_name="member")(torch.tensor([1.0, 2.0, 3.0]))
    tensor([0., 1., 2.])
    """
    (axis,) = _single_axis("ppermute", axis_name)
    sources = _sources([(int(source), int(target)) for source, target in perm], axis.size)
    return tree.map(lambda leaf: axis.permute(_check_tensor("ppermute", leaf), sources), values)


@hint_keywords(split_axis="write split_dim", concat_axis="write concat_dim")
def all_to_all(values: Tree, axis_name: str, split_dim: int, concat_dim: int, *, tiled: bool = False) -> Tree:
    """Send a part of each tensor to each member, and put together what all of them sent to this one.

    Dimension `split_dim` has an entry for each member, and is removed; the received parts are stacked at `concat_dim`.
    With `tiled`, the dimension is split into equal parts, and the received ones are concatenated along `concat_dim`.

    Raises:
        TransformError: there is no such axis or dimension, or its size does not fit the number of members.

    >>> from torchpure import vmap
    >>> vmap(lambda x: all_to_all(x, "member", 0, 0), axis_name="member")(torch.tensor([[1, 2], [3, 4]]))
    tensor([[1, 3],
            [2, 4]])
    """
    (axis,) = _single_axis("all_to_all", axis_name)

    def exchange(leaf: Any) -> Tensor:
        leaf = _check_tensor("all_to_all", leaf)
        source = _dim("all_to_all", split_dim, leaf.ndim, leaf)
        target = _dim("all_to_all", concat_dim, leaf.ndim, leaf)
        received = axis.exchange(_split("all_to_all", leaf, source, [axis], tiled).movedim(source, 0))
        if not tiled:
            return received.movedim(0, target)
        return received.movedim(0, target).flatten(target, target + 1)

    return tree.map(exchange, values)


def _single_axis(caller: str, axis_name: Any) -> list[NamedAxis]:
    if not isinstance(axis_name, str):
        raise TransformError(f"{caller}: wanted the name of one axis, got {tree.describe(axis_name)}")
    return begin_collective(caller, axis_name)


def _sources(pairs: list[tuple[int, int]], size: int) -> list[int]:
    sources = [-1] * size
    for source, target in pairs:
        if not (0 <= source < size and 0 <= target < size):
            raise TransformError(f"ppermute: ({source}, {target}) is no pair of members: the axis has {size}")
        if source in sources or sources[target] >= 0:
            raise TransformError(f"ppermute: a source or a target is named twice in {pairs}: name each one once")
        sources[target] = source
    return sources


def _split(caller: str, leaf: Tensor, dim: int, axes: Sequence[NamedAxis], tiled: bool) -> Tensor:
    """Return the tensor with a dimension of members at `dim`, followed by that of a part if `tiled`."""
    count, size = math.prod(axis.size for axis in axes), leaf.shape[dim]
    if size % count if tiled else size != count:
        raise TransformError(
            f"{caller}: dimension {dim} of {tree.describe(leaf)} must "
            f"{'be a multiple of' if tiled else 'equal'} the number of members, {count}; got {size}"
        )
    return leaf.unflatten(dim, (count, size // count)) if tiled else leaf


def _dim(caller: str, dim: int, ndim: int, leaf: Any) -> int:
    if not -ndim <= dim < ndim:
        raise TransformError(f"{caller}: there is no place for dimension {dim} in {tree.describe(leaf)}")
    return dim % ndim


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float | complex)


def _sums(caller: str, values: Any, axes: list[NamedAxis]) -> Any:
    leaves, structure = tree.flatten(values)
    places = [i for i, leaf in enumerate(leaves) if not _is_number(leaf)]
    tensors = [_check_tensor(caller, leaves[i]) for i in places]
    for axis in axes:
        tensors = axis.sum_all(tensors)
    sums = dict(zip(places, tensors, strict=True))
    count = math.prod(axis.size for axis in axes)
    return tree.unflatten(structure, [sums[i] if i in sums else leaf * count for i, leaf in enumerate(leaves)])


def _stack(caller: str, leaf: Any, axes: list[NamedAxis]) -> Tensor:
    leaf = torch.as_tensor(leaf) if _is_number(leaf) else _check_tensor(caller, leaf)
    if not axes:
        return leaf.unsqueeze(0)
    for axis in reversed(axes):
        leaf = axis.gather(leaf)
    return leaf.flatten(0, len(axes) - 1) if len(axes) > 1 else leaf


def _check_tensor(caller: str, leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor):
        raise TransformError(f"{caller}: wanted tensors or numbers, got {tree.describe(leaf)}")
    return leaf
