"""Run the members of a vmap in chunks, one after another, or on several devices in parallel."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure.errors import TransformError

from ._thread_settings import capture_settings


class MemberOutputs(NamedTuple):
    """The outputs of some or all members."""

    stacked: list[Tensor]  # outputs that differ between members, which are at dimension 0
    shared: list[Any]  # outputs that are the same for all members
    dims: list[int | None]  # the dimension of members in each final output; None if shared
    structure: Any


RunChunk = Callable[..., MemberOutputs]  # (leaves, number of members, index of the first or None)


def check_chunk(caller: str, chunk_size: int | None) -> None:
    """Check a chunk size.

    Raises:
        TransformError: it is not an int of at least 1.
    """
    if chunk_size is not None and (type(chunk_size) is not int or chunk_size < 1):
        raise TransformError(
            f"{caller}: chunk_size must be an int of at least 1, or None, got {tree.describe(chunk_size)}"
        )


def check_vmap_options(chunk_size: int | None, devices: Sequence[Any] | None, axis_name: str | None) -> None:
    """Check the options of `vmap`.

    Raises:
        TransformError: a chunk or a list of devices is empty, or a named axis would be split into chunks.
    """
    check_chunk("vmap", chunk_size)
    if devices is not None and (isinstance(devices, str) or not len(devices)):
        raise TransformError(f"vmap: devices must be a list of at least one device, got {tree.describe(devices)}")
    if axis_name is not None and (chunk_size is not None or devices is not None):
        raise TransformError(
            f"vmap: collectives over axis {axis_name!r} cannot span chunks or devices: leave out chunk_size and devices"
        )


def run_in_chunks(
    run_chunk: RunChunk,
    leaves: list[Any],
    dims: list[int | None],
    size: int,
    chunk_size: int | None,
    devices: Sequence[torch.device | str] | None,
) -> MemberOutputs:
    """Run all members: at once, in chunks, or in equal parts on several devices.

    Raises:
        TransformError: `devices` is given inside of another transform.
    """
    if devices is not None and not tree.unwatched():
        raise TransformError("vmap: devices are for the outermost transform: put this vmap outside of the others")
    if devices is None or not size:
        return _run_chunks(run_chunk, leaves, dims, size, chunk_size)
    bounds = [size * i // len(devices) for i in range(len(devices) + 1)]
    home_device = next(leaf.device for leaf, dim in zip(leaves, dims, strict=True) if dim is not None)
    settings_of_caller = capture_settings()

    def on_device(start: int, stop: int, device: torch.device | str) -> MemberOutputs:
        with settings_of_caller():
            moved = [_to_device(leaf, device) for leaf in _slice_members(leaves, dims, start, stop)]
            members = _run_chunks(run_chunk, moved, dims, stop - start, chunk_size, start)
            stacked, shared = ([_to_device(leaf, home_device) for leaf in group] for group in members[:2])
            return members._replace(stacked=stacked, shared=shared)

    spans = [(a, b, device) for a, b, device in zip(bounds, bounds[1:], devices, strict=False) if a < b]
    with ThreadPoolExecutor(len(spans)) as pool:
        return _concatenate(list(pool.map(lambda span: on_device(*span), spans)))


def _run_chunks(
    run_chunk: RunChunk,
    leaves: list[Any],
    dims: list[int | None],
    size: int,
    chunk_size: int | None,
    offset: int | None = None,
) -> MemberOutputs:
    if chunk_size is None or size <= chunk_size:
        return run_chunk(leaves, size, offset)
    starts = range(0, size, chunk_size)
    spans = [(start, min(start + chunk_size, size)) for start in starts]
    return _concatenate(
        [
            run_chunk(_slice_members(leaves, dims, start, stop), stop - start, (offset or 0) + start)
            for start, stop in spans
        ]
    )


def _slice_members(leaves: list[Any], dims: list[int | None], start: int, stop: int) -> list[Any]:
    """Return the leaves of the members from `start` to `stop`."""
    return [
        leaf if dim is None else leaf.narrow(dim, start, stop - start) for leaf, dim in zip(leaves, dims, strict=True)
    ]


def _concatenate(chunks: list[MemberOutputs]) -> MemberOutputs:
    chunks = [_reordered(chunk, chunks[0].structure) for chunk in chunks]
    columns = zip(*(chunk.stacked for chunk in chunks), strict=True)
    return chunks[0]._replace(stacked=[torch.cat(column) for column in columns])


def _reordered(chunk: MemberOutputs, structure: Any) -> MemberOutputs:
    """Put the outputs of a chunk in the key order of a structure."""
    if chunk.structure == structure:
        return chunk
    stacked, shared = iter(chunk.stacked), iter(chunk.shared)
    rows = [(dim, next(shared) if dim is None else next(stacked)) for dim in chunk.dims]
    numbers = tree.unflatten(chunk.structure, range(len(rows)))
    rows = [rows[i] for i in tree.ordered(structure, numbers, "vmap: the results of one chunk against another's")]
    batched, unbatched = ([leaf for dim, leaf in rows if (dim is None) is shared] for shared in (False, True))
    return MemberOutputs(batched, unbatched, [dim for dim, _ in rows], structure)


def _to_device(leaf: Any, device: torch.device | str) -> Any:
    # a meta tensor has no memory to move
    return leaf.to(device) if isinstance(leaf, Tensor) and not leaf.is_meta else leaf
