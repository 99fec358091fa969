"""Run the members of a compiled vmap in chunks, and chunks on threads, on groups of CPU cores and on devices."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from torchpure import tree
from torchpure.errors import CheckError
from torchpure.jit.native import is_on_one_thread, on_one_thread
from torchpure.transforms.batching import Mapping

CHUNK_MEMORY = 1 << 28  # bytes that one chunk may need; larger chunks are not faster
_CUDA_FRACTION = 4  # on CUDA a chunk may need one fourth of the free memory
_MISMATCH = "jit: the results of some members of a vmap against those of others"


class Schedule(NamedTuple):
    """How members run: how many at once, and whether chunks run in parallel."""

    width: int  # members at once
    parallel: bool  # several chunks at once, one thread each


class ChunkResult(NamedTuple):
    """The results of some members."""

    leaves: list[Any]
    structure: Any
    out_dims: list[int | None]

    def tree(self) -> Any:
        """Return the result as the function returns it."""
        return tree.unflatten(self.structure, self.leaves)


class Programs(Protocol):
    """The compiled programs of a function."""

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the program for these arguments."""

    def peak_memory(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Return the bytes that the program needs; None for a native program that needs at most `CHUNK_MEMORY`."""
        ...


class MappedCall(NamedTuple):
    mapping: Mapping
    mapped_programs: Programs
    member_programs: Programs
    leaves: list[Any]
    structure: Any
    dims: list[int | None]
    kwargs: dict[str, Any]
    offset: int = 0  # the number of the first member among all members

    def needs_grad(self) -> bool:
        """Return whether the function itself runs, so that the results can be differentiated."""
        tensors = (leaf for leaf in self.leaves if isinstance(leaf, Tensor))
        return torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tensors)

    def share(self, start: int, count: int, device: torch.device | str) -> "MappedCall":
        """Return the call of some members alone, on a device."""
        taken = [
            leaf if dim is None else leaf.narrow(dim, start, count)
            for leaf, dim in zip(self.leaves, self.dims, strict=True)
        ]
        return self._replace(leaves=[_to(leaf, device) for leaf in taken], offset=start)

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
            with _member_errors(self.offset + first, count):
                result = self.mapped_programs(args, self.kwargs)
            return ChunkResult(*tree.flatten(result), self.mapping.result_dims(result))
        singles = []
        for number in range(first, first + count):
            args = self.arguments(lambda leaf, dim, member=number: leaf.select(dim, member).contiguous())
            with _member_errors(self.offset + number):
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


def run_in_chunks(
    call: MappedCall, first: int, size: int, schedule: Schedule, threads: int | None = None
) -> list[ChunkResult]:
    """Run the remaining members in chunks, on all threads, or on so many.

    The last chunk overlaps the one before it, so that all chunks have one size and share one program.
    """
    threads = threads or (1 if is_on_one_thread() else max(torch.get_num_threads(), 1))
    width, workers = schedule.width, threads if schedule.parallel else 1
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


def concatenate(parts: Sequence[ChunkResult]) -> ChunkResult:
    """Join the results of consecutive members."""
    out_dims, structure = parts[0].out_dims, parts[0].structure
    columns = zip(*(_leaves_in_order(part, structure) for part in parts), strict=True)
    joined = [
        column[0] if dim is None else torch.cat(column, dim) for column, dim in zip(columns, out_dims, strict=True)
    ]
    return ChunkResult(joined, structure, out_dims)


def _leaves_in_order(part: ChunkResult, structure: Any) -> list[Any]:
    if part.structure == structure:
        return part.leaves
    return tree.ordered(structure, tree.unflatten(part.structure, part.leaves), _MISMATCH)


Start = Callable[[MappedCall, int], tuple[Schedule, list[ChunkResult], int]]


def run_on_devices(
    call: MappedCall, size: int, devices: Sequence[torch.device | str], start: Start
) -> list[ChunkResult]:
    """Run an equal share of the members on each device, each in its own thread; the first share finds the schedule.

    Shares have one size, and so one program for a kind of device: where they do not fit, neighbours overlap. Shares on
    the CPU are groups of cores, which divide torch's threads among them.
    """
    length = -(-size // len(devices))
    firsts = [min(first, size - length) for first in range(0, size, length)]
    shares = [call.share(first, length, device) for first, device in zip(firsts, devices, strict=False)]
    home = next(leaf.device for leaf, dim in zip(call.leaves, call.dims, strict=True) if dim is not None)
    groups = sum(torch.device(device).type == "cpu" for device in devices)
    threads = max(torch.get_num_threads() // max(groups, 1), 1)
    schedule, parts, done = start(shares[0], length)
    schedule = schedule._replace(width=min(schedule.width, length))
    recording = torch.is_grad_enabled()

    def run(number: int) -> ChunkResult:
        before, count = (parts, done) if number == 0 else ([], 0)
        alone = on_one_thread() if threads == 1 else nullcontext()
        with alone, torch.set_grad_enabled(recording):  # grad mode is per thread
            rest = run_in_chunks(shares[number], count, length, schedule, threads) if count < length else []
        result = concatenate([*before, *rest])
        return result._replace(leaves=[_to(leaf, home) for leaf in result.leaves])

    with ThreadPoolExecutor(len(shares)) as pool:
        results = list(pool.map(run, range(len(shares))))
    kept = [length, *(after - first for first, after in pairwise(firsts))]
    return [_keep_last(result, count) for result, count in zip(results, kept, strict=True)]


def _to(leaf: Any, device: torch.device | str) -> Any:
    return leaf.to(device) if isinstance(leaf, Tensor) else leaf
