"""`map`: a function applied to slices, one after another or in batches."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import T, Tree, X
from torchpure.errors import TransformError
from torchpure.transforms.batching import vmap
from torchpure.transforms.calls import check_callable
from torchpure.transforms.context import Start, starting

from ._scan import run_scan


def map(f: Callable[[X], T], xs: X, *, batch_size: int | None = None) -> T:
    """Apply `f` to each slice of `xs` along dimension 0, one after another, and stack the results.

    With `batch_size` so many at a time, by `vmap`: the memory of a few, and nearly the speed of all at once.

    Law: `map(f, xs) == vmap(f)(xs)`.

    Raises:
        TransformError: as for `scan`; or `batch_size` is not an int of at least 1.

    >>> map(lambda x: x.sum(), torch.ones(3, 2))
    tensor([2., 2., 2.])
    """
    check_callable("map", f)
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise TransformError(f"map: batch_size must be an int of at least 1, or None, got {tree.describe(batch_size)}")

    sizes = {leaf.shape[0] for leaf in tree.leaves(xs) if isinstance(leaf, Tensor) and leaf.ndim}
    if batch_size is None or len(sizes) != 1 or 0 in sizes:
        return _each(f, xs)
    return _in_batches(f, xs, sizes.pop(), batch_size)


def _each(fn: Callable[..., Any], rows: Tree) -> Tree:
    @wraps(fn)
    def step(_: Any, x: Tree) -> tuple[None, Tree]:
        return None, fn(x)

    return run_scan("map", step, None, rows, None)[1]


def _in_batches(f: Callable[[Any], Any], xs: Tree, size: int, batch_size: int) -> Tree:
    @wraps(f, updated=())
    def member(start: Start, x: Tree) -> Tree:
        with starting(start):
            return f(x)

    @wraps(f, updated=())
    def batch(part: tuple[Start, Tree]) -> Tree:
        return vmap(member, in_dims=(None, 0))(*part)

    whole = size - size % batch_size
    parts = []
    if whole:
        rows = tree.map(lambda x: x[:whole].reshape(-1, batch_size, *x.shape[1:]), xs)
        starts = torch.arange(0, whole, batch_size, device=tree.leaves(rows)[0].device)
        parts.append(tree.map(lambda y: y.flatten(0, 1), _each(batch, (starts, rows))))
    if whole < size:
        parts.append(batch((whole, tree.map(lambda x: x[whole:], xs))))
    return tree.map(lambda *pieces: torch.cat(pieces) if len(pieces) > 1 else pieces[0], *parts)
