"""Running totals of an associative function, in log n steps (Blelloch 1990; as `jax.lax.associative_scan`)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable
from torchpure.transforms.engine import describe_function
from torchpure.transforms.purity import watched

from ._carry import alike, described

Combine = Callable[[Any, Any], Any]


def associative_scan(fn: Combine, elems: Tree, *, reverse: bool = False, axis: int = 0) -> Tree:
    """Combine all elements up to each one: x0, fn(x0, x1), fn(fn(x0, x1), x2) … along an axis.

    `fn(a, b)` must be associative, and works on many elements at once: on slices along the axis, as `torch.add` does.
    It is called about 2 log2(n) times. From the last element on if `reverse`.

    Raises:
        TransformError: elements differ in number, or `fn` does not give what it was given in shape and dtype.
        StructureError: or in structure.

    >>> associative_scan(torch.mul, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor([ 1.,  2.,  6., 24.])
    """
    check_callable("associative_scan", fn)
    leaves, structure = tree.flatten(elems)
    axes = _axes(fn, elems, leaves, axis)
    if reverse:
        leaves = [leaf.flip(dim) for leaf, dim in zip(leaves, axes, strict=True)]
    watch = watched("associative_scan", fn, (elems,))
    out = _totals(_Combined(fn, structure), leaves, axes)
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
        found = ", ".join(f"{size} at `{names[i]}`" for size, i in sizes.items()) or "none"
        raise TransformError(f"associative_scan: {describe_function(fn)}: elems differ in number: {found}")
    return [axis % leaf.ndim for leaf in leaves]


class _Combined:
    """The function, of lists of tensors."""

    def __init__(self, fn: Combine, structure: Any) -> None:
        self._fn, self._structure = fn, structure

    def __call__(self, one: list[Tensor], two: list[Tensor]) -> list[Tensor]:
        wanted = tree.unflatten(self._structure, two)
        got = self._fn(tree.unflatten(self._structure, one), wanted)
        who = f"associative_scan: {describe_function(self._fn)}: what it returns, against what it is given"
        tree.check_same(wanted, got, who=who)
        out = tree.align(self._structure, wanted, got, who)
        for i, (leaf, new) in enumerate(zip(two, out, strict=True)):
            if not alike(leaf, new):
                raise TransformError(
                    f"associative_scan: {describe_function(self._fn)} must return what it is given in shape and dtype: "
                    f"at `{tree.paths(wanted)[i]}` wanted {described(leaf, new)}, got {described(new, leaf)}"
                )
        return out


def _totals(fn: _Combined, leaves: list[Tensor], axes: list[int]) -> list[Tensor]:
    count = leaves[0].shape[axes[0]]
    if count < 2:
        return leaves
    odd = _totals(fn, fn(_part(leaves, axes, 0, count - 1, 2), _part(leaves, axes, 1, count, 2)), axes)
    first = _part(leaves, axes, 0, 1, 1)
    if count == 2:
        even = first
    else:
        before = _part(odd, axes, 0, (count - 1) // 2, 1)
        more = fn(before, _part(leaves, axes, 2, count, 2))
        even = [torch.cat(pair, dim) for *pair, dim in zip(first, more, axes, strict=True)]
    return [_woven(one, two, dim) for one, two, dim in zip(even, odd, axes, strict=True)]


def _part(leaves: list[Tensor], axes: list[int], start: int, stop: int, step: int) -> list[Tensor]:
    return [leaf[(slice(None),) * dim + (slice(start, stop, step),)] for leaf, dim in zip(leaves, axes, strict=True)]


def _woven(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    """Put two tensors together, one entry of each in turn."""
    count = odd.shape[dim]
    pairs = torch.stack([even.narrow(dim, 0, count), odd], dim + 1).flatten(dim, dim + 1)
    return pairs if even.shape[dim] == count else torch.cat([pairs, even.narrow(dim, count, 1)], dim)
