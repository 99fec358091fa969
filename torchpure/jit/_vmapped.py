"""`jit(vmap(fn))`: run the members in chunks, each chunk from start to end before the next one.

Law: `jit(vmap(fn))(xs)[i] == jit(fn)(xs[i])`, whatever the chunks.

A chunk of a native program fits in cache, and chunks run in parallel on all cores. Vector lanes may run over members
(chunks of 64 or 16) or inside one member (chunks of 1). The first call runs its first chunks each way, measures, and
keeps the fastest schedule. Other programs use all cores themselves: as many members run at once as fit in memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from torchpure import tree
from torchpure.errors import CheckError
from torchpure.jit.native import on_one_thread
from torchpure.transforms.batching import Mapping
from torchpure.transforms.context import current

CHUNK_WIDTHS = (64, 16, 1)  # chunk sizes to measure; 1 runs the program of a single member on each
MIN_MEMBERS_FOR_CHUNKS = 8  # fewer members run all at once
_MISMATCH = "jit: the results of some members of a vmap against those of others"
_TIMED_MEMBERS = 4  # members on which the program of a single member is timed
CHUNK_MEMORY = 1 << 28  # bytes that one chunk may need; larger chunks are not faster
_CUDA_FRACTION = 4  # on CUDA a chunk may need one fourth of the free memory


class Schedule(NamedTuple):
    """How members run: how many at once, and whether chunks run in parallel."""

    width: int  # members at once
    parallel: bool  # several chunks at once, one thread each


class ChunkResult(NamedTuple):
    """The results of some members."""

    leaves: list[Any]
    structure: Any
    out_dims: list[int | None]


class ChunkedVmap:
    """The compiled form of one mapped function."""

    def __init__(self, mapping: Mapping, mapped_programs: "Programs", member_programs: "Programs") -> None:
        """Store the mapped function, its programs, and the programs of a single member."""
        self._mapping, self._mapped_programs, self._member_programs = mapping, mapped_programs, member_programs
        self._schedules: dict[Any, Schedule] = {}

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run all members."""
        if current.mesh_axes:  # each process would measure and choose chunks of its own
            return self._mapped_programs(args, kwargs)
        leaves, structure, dims, size = self._mapping.split(args)
        shapes = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (structure, tuple(dims), shapes)
        call = _MappedCall(self._mapping, self._mapped_programs, self._member_programs, leaves, structure, dims, kwargs)
        schedule = self._schedules.get(key)
        parts: list[ChunkResult] = []
        done = 0
        if schedule is None:
            schedule, parts, done = _measure_schedules(call, size)
            self._schedules[key] = schedule
        if schedule.width >= size:
            return self._mapped_programs(args, kwargs)
        parts.extend(_run_in_chunks(call, done, size, schedule))
        return _concatenate(parts)


class Programs(Protocol):
    """The compiled programs of a function."""

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the program for these arguments."""

    def peak_memory(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Return the bytes that the program needs; None for a native program that needs at most `CHUNK_MEMORY`."""
        ...


class _MappedCall(NamedTuple):
    mapping: Mapping
    mapped_programs: Programs
    member_programs: Programs
    leaves: list[Any]
    structure: Any
    dims: list[int | None]
    kwargs: dict[str, Any]

    def arguments(self, take: Callable[[Tensor, int], Tensor]) -> Any:
        """Return the arguments, with `take(leaf, dim)` in the place of each mapped leaf."""
        chosen_leaves = [
            leaf if dim is None else take(leaf, dim) for leaf, dim in zip(self.leaves, self.dims, strict=True)
        ]
        return tree.unflatten(self.structure, chosen_leaves)

    def run(self, first: int, count: int, width: int) -> ChunkResult:
        """Run `count` members: at once if `width` is above 1, else one after another."""
        if width > 1:
            args = self.arguments(lambda leaf, dim: leaf.narrow(dim, first, count).contiguous())
            with _member_errors(first, count):
                result = self.mapped_programs(args, self.kwargs)
            return ChunkResult(*tree.flatten(result), self.mapping.result_dims(result))
        singles = []
        for number in range(first, first + count):
            args = self.arguments(lambda leaf, dim, member=number: leaf.select(dim, member).contiguous())
            with _member_errors(number):
                singles.append(self.member_programs(args, self.kwargs))
        out_dims = self.mapping.result_dims(singles[0])
        structure = tree.structure(singles[0])
        columns = zip(*(tree.ordered(structure, result, _MISMATCH) for result in singles), strict=True)
        stacked = [
            column[0] if dim is None else torch.stack(column, dim)
            for column, dim in zip(columns, out_dims, strict=True)
        ]
        return ChunkResult(stacked, structure, out_dims)

    def peak_memory(self, width: int) -> int | None:
        """Return the bytes that a program of `width` members needs; None for a native program that fits."""
        if width == 1:
            args = self.arguments(lambda leaf, dim: leaf.select(dim, 0).contiguous())
            return self.member_programs.peak_memory(args, self.kwargs)
        args = self.arguments(lambda leaf, dim: leaf.narrow(dim, 0, width).contiguous())
        return self.mapped_programs.peak_memory(args, self.kwargs)

    def schedule_within_memory(self, size: int, needed: float) -> Schedule:
        """Return the schedule for members of `needed` bytes each: equal chunks that fit in memory."""
        device = next((leaf.device for leaf in self.leaves if isinstance(leaf, Tensor) and leaf.is_cuda), None)
        limit = CHUNK_MEMORY if device is None else torch.cuda.mem_get_info(device)[0] // _CUDA_FRACTION
        chunks = math.ceil(size / max(limit // max(needed, 1), 1))
        return Schedule(math.ceil(size / chunks), parallel=False)


@contextmanager
def _member_errors(first: int, count: int | None = None) -> Iterator[None]:
    """Make errors name members by their number among all members.

    With `count` None, the one member `first` runs; else members `first` to `first + count - 1` run at once.
    """
    try:
        yield
    except CheckError as error:
        raise error.among(first, count is None) from None
    except torch.linalg.LinAlgError as error:
        where = (
            f"member {first}" if count is None else f"counted from the first of members {first} to {first + count - 1}"
        )
        raise torch.linalg.LinAlgError(f"{error} ({where} of vmap)") from None


def _measure_schedules(call: _MappedCall, size: int) -> tuple[Schedule, list[ChunkResult], int]:
    """Run the first members with each width. Return the fastest schedule, the results so far, and their count."""
    parts: list[ChunkResult] = []
    best, chosen, done = math.inf, Schedule(size, parallel=False), 0
    needs_grad = torch.is_grad_enabled() and any(
        isinstance(leaf, Tensor) and leaf.requires_grad for leaf in call.leaves
    )
    if needs_grad or not size:
        return chosen, parts, 0
    if size < MIN_MEMBERS_FOR_CHUNKS:
        return call.schedule_within_memory(size, (call.peak_memory(size) or 0) / size), parts, 0
    collectives = current.mesh_collectives
    needed = 0.0  # bytes of one member; set once a width has no native program
    for width in CHUNK_WIDTHS:
        count = width if width > 1 else min(_TIMED_MEMBERS, size)
        if done + count > size or (needed and width > 1):
            continue
        memory = call.peak_memory(width)
        if current.mesh_collectives != collectives:  # the trace has collectives over a mesh
            return chosen, [], 0
        if memory is not None:
            needed = needed or memory / width
            continue
        start = perf_counter()
        with on_one_thread():
            parts.append(call.run(done, count, width))
        done += count
        seconds = (perf_counter() - start) / count
        if seconds < best:
            best, chosen = seconds, Schedule(width, parallel=True)
    return chosen if parts else call.schedule_within_memory(size, needed), parts, done


def _run_in_chunks(call: _MappedCall, first: int, size: int, schedule: Schedule) -> list[ChunkResult]:
    """Run the remaining members in chunks, on all threads.

    The last chunk overlaps the one before it, so that all chunks have one size and share one program.
    """
    width, workers = schedule.width, max(torch.get_num_threads(), 1) if schedule.parallel else 1
    step = width if width > 1 else max(-(-(size - first) // (4 * workers)), 1)
    starts = list(range(first, size, step))
    recording = torch.is_grad_enabled()

    def chunk(start: int) -> ChunkResult:
        with torch.set_grad_enabled(recording):  # grad mode is per thread
            if width == 1 or start + width <= size:
                return call.run(start, min(step, size - start), width)
            return _keep_last(call.run(size - width, width, width), size - start)

    if workers == 1 or len(starts) < 2:
        return list(map(chunk, starts))

    def chunk_alone(start: int) -> ChunkResult:
        with on_one_thread():
            return chunk(start)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(chunk_alone, starts))


def _keep_last(part: ChunkResult, count: int) -> ChunkResult:
    """Keep the last `count` members of a result."""
    leaves = [
        leaf if dim is None else leaf.narrow(dim, leaf.shape[dim] - count, count)
        for leaf, dim in zip(part.leaves, part.out_dims, strict=True)
    ]
    return part._replace(leaves=leaves)


def _concatenate(parts: Sequence[ChunkResult]) -> Any:
    out_dims, structure = parts[0].out_dims, parts[0].structure
    columns = zip(*(_leaves_in_order(part, structure) for part in parts), strict=True)
    joined = [
        column[0] if dim is None else torch.cat(column, dim) for column, dim in zip(columns, out_dims, strict=True)
    ]
    return tree.unflatten(structure, joined)


def _leaves_in_order(part: ChunkResult, structure: Any) -> list[Any]:
    if part.structure == structure:
        return part.leaves
    return tree.ordered(structure, tree.unflatten(part.structure, part.leaves), _MISMATCH)
