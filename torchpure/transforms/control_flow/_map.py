"""`map`: a function applied to each slice, one after another or in batches."""

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
from torchpure.transforms.context import Offset, set_chunk_offset
from torchpure.transforms.engine import refuse_nested

from ._scan import run_scan


def map(f: Callable[[X], T], xs: X, *, batch_size: int | None = None) -> T:
    """Apply `f` to each slice of `xs` along dimension 0, one after another, and stack the results.

    With `batch_size`, `vmap` runs that many slices at a time: little memory, and nearly the speed of one `vmap`.

    Law: `map(f, xs) == vmap(f)(xs)`.

    Raises:
        TransformError: as for `scan`; or `batch_size` is not an int of at least 1.

    >>> map(lambda x: x.sum(), torch.ones(3, 2))
    tensor([2., 2., 2.])
    """
    check_callable("map", f)
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise TransformError(f"map: batch_size must be an int of at least 1, or None, got {tree.describe(batch_size)}")

    leaves = tree.leaves(xs)
    refuse_nested("map", f, leaves, jagged=True)
    sizes = {leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim}
    if batch_size is None or len(sizes) != 1 or 0 in sizes:
        return _map_rows(f, xs)
    return _in_batches(f, xs, sizes.pop(), batch_size)


def _map_rows(fn: Callable[..., Any], rows: Tree) -> Tree:
    @wraps(fn)
    def step(_: Any, x: Tree) -> tuple[None, Tree]:
        return None, fn(x)

    return run_scan("map", step, None, rows, None)[1]


def _in_batches(f: Callable[[Any], Any], xs: Tree, size: int, batch_size: int) -> Tree:
    @wraps(f, updated=())
    def member(offset: Offset, x: Tree) -> Tree:
        with set_chunk_offset(offset):
            return f(x)

    @wraps(f, updated=())
    def run_batch(batch_args: tuple[Offset, Tree]) -> Tree:
        return vmap(member, in_dims=(None, 0))(*batch_args)

    num_batched = size - size % batch_size
    parts = []
    if num_batched:
        rows = tree.map(lambda x: x[:num_batched].reshape(-1, batch_size, *x.shape[1:]), xs)
        offsets = torch.arange(0, num_batched, batch_size, device=tree.leaves(rows)[0].device)
        parts.append(tree.map(lambda y: y.flatten(0, 1), _map_rows(run_batch, (offsets, rows))))
    if num_batched < size:
        parts.append(run_batch((num_batched, tree.map(lambda x: x[num_batched:], xs))))
    return tree.map(lambda *pieces: torch.cat(pieces) if len(pieces) > 1 else pieces[0], *parts)
