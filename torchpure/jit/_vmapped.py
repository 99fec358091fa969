"""Many members of one program: `jit(vmap(fn))` runs chunks of them, the whole run of one chunk before the next.

Law: `jit(vmap(fn))(xs)[i] == jit(fn)(xs[i])`, whatever the chunks.

A chunk of a program of C++ fits in cache, and such chunks run on all cores. Whether lanes of vectors run over members
or over what each member computes is found by measurement: the first chunks of the first call run each way, and the
fastest is kept. Other programs use all cores themselves; as many members run at once as fit in memory.
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
from torchpure.transforms.batching import Mapping

CHUNK_WIDTHS = (64, 16, 1)  # members at once that are tried; 1 is the program of one member, run on each
MIN_MEMBERS_FOR_CHUNKS = 8  # below this many members all run at once
_MISMATCH = "jit: the results of some members of a vmap against those of others"
_TIMED_MEMBERS = 4  # members that the program of one is timed on
CHUNK_MEMORY = 1 << 28  # bytes that the members of one chunk may need; more at once are not faster
_CUDA_FRACTION = 4  # a chunk may need this part of the memory that is free there: one fourth


class Schedule(NamedTuple):
    """How members run."""

    width: int  # so many at once
    parallel: bool  # several chunks at once, each on one thread


class ChunkResult(NamedTuple):
    """Results of some members, which each leaf has at its place."""

    leaves: list[Any]
    structure: Any
    places: list[int | None]


class ChunkedVmap:
    """The compiled form of one mapped function."""

    def __init__(self, mapping: Mapping, mapped_programs: "Programs", member_programs: "Programs") -> None:
        """Take the mapped function, and what compiles it and the function of one member."""
        self._mapping, self._mapped_programs, self._member_programs = mapping, mapped_programs, member_programs
        self._schedules: dict[Any, Schedule] = {}

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run all members."""
        leaves, structure, dims, size = self._mapping.split(args)
        shapes = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (structure, tuple(dims), shapes)
        call = _MappedCall(self._mapping, self._mapped_programs, self._member_programs, leaves, structure, dims, kwargs)
        schedule = self._schedules.get(key)
        parts: list[ChunkResult] = []
        at = 0
        if schedule is None:
            schedule, parts, at = _measure_schedules(call, size)
            self._schedules[key] = schedule
        if schedule.width >= size:
            return self._mapped_programs(args, kwargs)
        parts.extend(_run_in_chunks(call, at, size, schedule))
        return _concatenate(parts)


class Programs(Protocol):
    """The compiled programs of a function."""

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the one for these arguments."""

    def peak_memory(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Return the bytes that the one for these needs; None if it is one of C++, which leaves other threads free."""
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
        """Return the arguments with parts of what is mapped."""
        chosen_leaves = [
            leaf if dim is None else take(leaf, dim) for leaf, dim in zip(self.leaves, self.dims, strict=True)
        ]
        return tree.unflatten(self.structure, chosen_leaves)

    def run(self, first: int, count: int, width: int) -> ChunkResult:
        """Run members at once, or one after another."""
        if width > 1:
            args = self.arguments(lambda leaf, dim: leaf.narrow(dim, first, count).contiguous())
            with _member_errors(first, count):
                result = self.mapped_programs(args, self.kwargs)
            return ChunkResult(*tree.flatten(result), self.mapping.places(result))
        singles = []
        for number in range(first, first + count):
            args = self.arguments(lambda leaf, dim, at=number: leaf.select(dim, at).contiguous())
            with _member_errors(number):
                singles.append(self.member_programs(args, self.kwargs))
        out_dims = self.mapping.places(singles[0])
        structure = tree.structure(singles[0])
        columns = zip(*(tree.ordered(structure, result, _MISMATCH) for result in singles), strict=True)
        stacked = [
            column[0] if dim is None else torch.stack(column, dim)
            for column, dim in zip(columns, out_dims, strict=True)
        ]
        return ChunkResult(stacked, structure, out_dims)

    def peak_memory(self, width: int) -> int | None:
        """Return the bytes that a program of so many members needs; None for one that runs on one thread."""
        if width == 1:
            args = self.arguments(lambda leaf, dim: leaf.select(dim, 0).contiguous())
            return self.member_programs.peak_memory(args, self.kwargs)
        args = self.arguments(lambda leaf, dim: leaf.narrow(dim, 0, width).contiguous())
        return self.mapped_programs.peak_memory(args, self.kwargs)

    def schedule_within_memory(self, size: int, needed: float) -> Schedule:
        """Return the way in which members that need so much memory each fit: at once, or in chunks of one size."""
        device = next((leaf.device for leaf in self.leaves if isinstance(leaf, Tensor) and leaf.is_cuda), None)
        limit = CHUNK_MEMORY if device is None else torch.cuda.mem_get_info(device)[0] // _CUDA_FRACTION
        chunks = math.ceil(size / max(limit // max(needed, 1), 1))
        return Schedule(math.ceil(size / chunks), parallel=False)


@contextmanager
def _member_errors(first: int, count: int | None = None) -> Iterator[None]:
    """Let what fails name members by their numbers among all: one that runs alone, or several that run at once."""
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
    """Run the first members each way: the fastest, what has been computed, and how many members that is."""
    parts: list[ChunkResult] = []
    best, chosen, at = math.inf, Schedule(size, parallel=False), 0
    needs_grad = torch.is_grad_enabled() and any(
        isinstance(leaf, Tensor) and leaf.requires_grad for leaf in call.leaves
    )
    if needs_grad or not size:
        return chosen, parts, 0
    if size < MIN_MEMBERS_FOR_CHUNKS:
        return call.schedule_within_memory(size, (call.peak_memory(size) or 0) / size), parts, 0
    needed = 0.0  # bytes of one member, where no program of several is one of C++
    for width in CHUNK_WIDTHS:
        count = width if width > 1 else min(_TIMED_MEMBERS, size)
        if at + count > size or (needed and width > 1):
            continue
        memory = call.peak_memory(width)
        if memory is not None:
            needed = needed or memory / width
            continue
        start = perf_counter()
        parts.append(call.run(at, count, width))
        at += count
        seconds = (perf_counter() - start) / count
        if seconds < best:
            best, chosen = seconds, Schedule(width, parallel=True)
    return chosen if parts else call.schedule_within_memory(size, needed), parts, at


def _run_in_chunks(call: _MappedCall, first: int, size: int, schedule: Schedule) -> list[ChunkResult]:
    """Run the rest in chunks, on all threads; the last chunk overlaps, so that there is one program."""
    width, workers = schedule.width, max(torch.get_num_threads(), 1) if schedule.parallel else 1
    step = width if width > 1 else max(-(-(size - first) // (4 * workers)), 1)
    starts = list(range(first, size, step))
    recording = torch.is_grad_enabled()

    def chunk(start: int) -> ChunkResult:
        with torch.set_grad_enabled(recording):  # a setting of the thread
            if width == 1 or start + width <= size:
                return call.run(start, min(step, size - start), width)
            return _keep_last(call.run(size - width, width, width), size - start)

    if workers == 1 or len(starts) < 2:
        return list(map(chunk, starts))
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(chunk, starts))


def _keep_last(part: ChunkResult, count: int) -> ChunkResult:
    """Keep the last members of a part."""
    leaves = [
        leaf if dim is None else leaf.narrow(dim, leaf.shape[dim] - count, count)
        for leaf, dim in zip(part.leaves, part.places, strict=True)
    ]
    return part._replace(leaves=leaves)


def _concatenate(parts: Sequence[ChunkResult]) -> Any:
    out_dims, structure = parts[0].places, parts[0].structure
    columns = zip(*(_leaves_in_order(part, structure) for part in parts), strict=True)
    joined = [
        column[0] if dim is None else torch.cat(column, dim) for column, dim in zip(columns, out_dims, strict=True)
    ]
    return tree.unflatten(structure, joined)


def _leaves_in_order(part: ChunkResult, structure: Any) -> list[Any]:
    if part.structure == structure:
        return part.leaves
    return tree.ordered(structure, tree.unflatten(part.structure, part.leaves), _MISMATCH)
