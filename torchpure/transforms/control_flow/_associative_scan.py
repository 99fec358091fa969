"""Prefix sums of an associative function in log n steps (Blelloch 1990; as `jax.lax.associative_scan`)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import T, Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable
from torchpure.transforms.engine import describe_function, refuse_nested
from torchpure.transforms.purity import watched

from ._carry import describe_leaf, matches

Combine = Callable[[Any, Any], Any]


def associative_scan(fn: Callable[[T, T], T], elems: T, *, reverse: bool = False, axis: int = 0) -> T:
    """Combine all elements up to each one: x0, fn(x0, x1), fn(fn(x0, x1), x2) … along an axis.

    `fn(a, b)` must be associative. It gets many elements at once, as slices along the axis, as `torch.add` would. It is
    called about 2 log2(n) times. With `reverse`, the scan starts at the last element.

    Raises:
        TransformError: leaves have different lengths along the axis, or `fn` changes a shape or dtype.
        StructureError: `fn` changes the structure.

    >>> associative_scan(torch.mul, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor([ 1.,  2.,  6., 24.])
    """
    check_callable("associative_scan", fn)
    leaves, structure = tree.flatten(elems)
    refuse_nested("associative_scan", fn, leaves, jagged=True)
    axes = _axes(fn, elems, leaves, axis)
    if reverse:
        leaves = [leaf.flip(dim) for leaf, dim in zip(leaves, axes, strict=True)]
    watch = watched("associative_scan", fn, (elems,))
    out = _recurse(_FlatCombine(fn, structure), leaves, axes)
    watch.check()
    if reverse:
        out = [leaf.flip(dim) for leaf, dim in zip(out, axes, strict=True)]
    return watch.unaliased(tree.unflatten(structure, out))


def _axes(fn: Combine, elems: Tree, leaves: list[Any], axis: int) -> list[int]:
    sizes: dict[int, int] = {}
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor) or not -leaf.ndim <= axis < leaf.ndim:
            raise TransformError(
                f"associative_scan: {describe_function(fn)}: elems at `{tree.paths(elems)[i]}` must be a tensor with a "
                f"dimension {axis}, got {tree.describe(leaf)}"
            )
        sizes.setdefault(leaf.shape[axis], i)
    if len(sizes) != 1:
        names = tree.paths(elems)
        sizes_found = ", ".join(f"{size} at `{names[i]}`" for size, i in sizes.items()) or "none"
        raise TransformError(f"associative_scan: {describe_function(fn)}: elems differ in number: {sizes_found}")
    return [axis % leaf.ndim for leaf in leaves]


class _FlatCombine:
    """The function, on flat lists of tensors."""

    def __init__(self, fn: Combine, structure: Any) -> None:
        self._fn, self._structure = fn, structure

    def __call__(self, left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
        expected = tree.unflatten(self._structure, right)
        result = self._fn(tree.unflatten(self._structure, left), expected)
        label = f"associative_scan: {describe_function(self._fn)}: what it returns, against what it is given"
        tree.check_same(expected, result, caller=label)
        out = tree.align(self._structure, expected, result, label)
        for i, (leaf, combined) in enumerate(zip(right, out, strict=True)):
            if not matches(leaf, combined):
                raise TransformError(
                    f"associative_scan: {describe_function(self._fn)} must return what it is given in shape and dtype: "
                    f"at `{tree.paths(expected)[i]}` wanted {describe_leaf(leaf, combined)}, "
                    f"got {describe_leaf(combined, leaf)}"
                )
        return out


def _recurse(fn: _FlatCombine, leaves: list[Tensor], axes: list[int]) -> list[Tensor]:
    count = leaves[0].shape[axes[0]]
    if count < 2:
        return leaves
    odd = _recurse(fn, fn(_slices(leaves, axes, 0, count - 1, 2), _slices(leaves, axes, 1, count, 2)), axes)
    first = _slices(leaves, axes, 0, 1, 1)
    if count == 2:
        even = first
    else:
        before = _slices(odd, axes, 0, (count - 1) // 2, 1)
        later = fn(before, _slices(leaves, axes, 2, count, 2))
        even = [torch.cat(pair, dim) for *pair, dim in zip(first, later, axes, strict=True)]
    return [_interleave(left, right, dim) for left, right, dim in zip(even, odd, axes, strict=True)]


def _slices(leaves: list[Tensor], axes: list[int], start: int, stop: int, step: int) -> list[Tensor]:
    return [leaf[(slice(None),) * dim + (slice(start, stop, step),)] for leaf, dim in zip(leaves, axes, strict=True)]


def _interleave(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    """Interleave two tensors along a dimension: even[0], odd[0], even[1] and so on."""
    count = odd.shape[dim]
    pairs = torch.stack([even.narrow(dim, 0, count), odd], dim + 1).flatten(dim, dim + 1)
    return pairs if even.shape[dim] == count else torch.cat([pairs, even.narrow(dim, count, 1)], dim)
