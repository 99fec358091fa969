"""Members of a vmap in several shares: chunks, one after another, and devices, side by side."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure.errors import TransformError
from torchpure.transforms.overrides import overriding

from ._thread_settings import settings


class Members(NamedTuple):
    """The outputs of members."""

    stacked: list[Tensor]  # those that differ, members at dimension 0
    shared: list[Tensor]  # those that are the same for all
    dims: list[int | None]  # where the members of each output are to be; None if shared
    structure: Any


Share = Callable[..., Members]  # of leaves, how many members, and the number of the first if they are some of more


def check_chunk(who: str, chunk_size: int | None) -> None:
    """Check the size of a chunk.

    Raises:
        TransformError: it is not an int of at least 1.
    """
    if chunk_size is not None and (type(chunk_size) is not int or chunk_size < 1):
        raise TransformError(
            f"{who}: chunk_size must be an int of at least 1, or None, got {tree.describe(chunk_size)}"
        )


def check_spread(chunk_size: int | None, devices: Sequence[Any] | None, axis_name: str | None) -> None:
    """Check the options of a vmap.

    Raises:
        TransformError: a chunk or a list of devices is empty, or members that are to meet would be apart.
    """
    check_chunk("vmap", chunk_size)
    if devices is not None and (isinstance(devices, str) or not len(devices)):
        raise TransformError(f"vmap: devices must be a list of at least one device, got {tree.describe(devices)}")
    if axis_name is not None and (chunk_size is not None or devices is not None):
        raise TransformError(
            f"vmap: the members of axis {axis_name!r} have to run at once to meet: leave out chunk_size and devices"
        )


def spread(
    share: Share,
    leaves: list[Any],
    dims: list[int | None],
    size: int,
    chunk_size: int | None,
    devices: Sequence[torch.device | str] | None,
) -> Members:
    """Run all members: at once, or in chunks, or in one share a device.

    Raises:
        TransformError: devices are asked for inside another transform.
    """
    if devices is not None and not tree.unwatched():
        raise TransformError("vmap: devices are for the outermost transform: put this vmap outside of the others")
    if devices is None or not size:
        return _chunked(share, leaves, dims, size, chunk_size)
    bounds = [size * i // len(devices) for i in range(len(devices) + 1)]
    home = next(leaf.device for leaf, dim in zip(leaves, dims, strict=True) if dim is not None)
    as_here = settings()

    def on_device(start: int, stop: int, device: torch.device | str) -> Members:
        with as_here(), overriding():
            there = [_to(leaf, device) for leaf in _part(leaves, dims, start, stop)]
            members = _chunked(share, there, dims, stop - start, chunk_size, start)
            stacked, shared = ([_to(leaf, home) for leaf in part] for part in members[:2])
            return members._replace(stacked=stacked, shared=shared)

    spans = [(a, b, device) for a, b, device in zip(bounds, bounds[1:], devices, strict=False) if a < b]
    with ThreadPoolExecutor(len(spans)) as pool:
        return _joined(list(pool.map(lambda span: on_device(*span), spans)))


def _chunked(
    share: Share, leaves: list[Any], dims: list[int | None], size: int, chunk_size: int | None, first: int | None = None
) -> Members:
    if chunk_size is None or size <= chunk_size:
        return share(leaves, size, first)
    starts = range(0, size, chunk_size)
    spans = [(start, min(start + chunk_size, size)) for start in starts]
    return _joined(
        [share(_part(leaves, dims, start, stop), stop - start, (first or 0) + start) for start, stop in spans]
    )


def _part(leaves: list[Any], dims: list[int | None], start: int, stop: int) -> list[Any]:
    """Return the leaves with some of the members."""
    return [
        leaf if dim is None else leaf.narrow(dim, start, stop - start) for leaf, dim in zip(leaves, dims, strict=True)
    ]


def _joined(parts: list[Members]) -> Members:
    parts = [_arranged(part, parts[0].structure) for part in parts]
    columns = zip(*(part.stacked for part in parts), strict=True)
    return parts[0]._replace(stacked=[torch.cat(column) for column in columns])


def _arranged(part: Members, structure: Any) -> Members:
    """Put the outputs of a share in the order of a structure."""
    if part.structure == structure:
        return part
    stacked, shared = iter(part.stacked), iter(part.shared)
    rows = [(dim, next(shared) if dim is None else next(stacked)) for dim in part.dims]
    numbers = tree.unflatten(part.structure, range(len(rows)))
    rows = [rows[i] for i in tree.ordered(structure, numbers, "vmap: the results of one chunk against another's")]
    apart, same = ([leaf for dim, leaf in rows if (dim is None) is shared] for shared in (False, True))
    return Members(apart, same, [dim for dim, _ in rows], structure)


def _to(leaf: Any, device: torch.device | str) -> Any:
    return leaf.to(device) if isinstance(leaf, Tensor) and not leaf.is_meta else leaf  # there is nothing to move
