"""`jit(vmap(fn))`: run the members in chunks, each chunk from start to end before the next one.

Law: `jit(vmap(fn))(xs)[i] == jit(fn)(xs[i])`, whatever the chunks.

A chunk of a native program fits in cache, and chunks run in parallel on all cores. Vector lanes may run over members
(chunks of 64 or 16) or inside one member (chunks of 1). The first call runs its first chunks each way, measures, and
keeps the fastest schedule. Other programs use all cores themselves: as many members run at once as fit in memory.

`vmap(chunk_size=)` sets the width, and nothing is measured: the bits of a member do not depend on times then. With
`vmap(devices=)` each device, or group of CPU cores, runs an equal share of the members in its own thread.
"""

import math
from time import perf_counter
from typing import Any

from torch import Tensor

from torchpure.jit.native import on_one_thread
from torchpure.transforms.batching import Mapping
from torchpure.transforms.context import current

from ._vmapped_chunks import (
    CHUNK_MEMORY,
    ChunkResult,
    MappedCall,
    Programs,
    Schedule,
    concatenate,
    run_in_chunks,
    run_on_devices,
)

CHUNK_WIDTHS = (64, 16, 1)  # chunk sizes to measure; 1 runs the program of a single member on each
MIN_MEMBERS_FOR_CHUNKS = 8  # fewer members run all at once
_TIMED_MEMBERS = 4  # members on which the program of a single member is timed


class ChunkedVmap:
    """The compiled form of one mapped function."""

    def __init__(self, mapping: Mapping, mapped_programs: Programs, member_programs: Programs) -> None:
        """Store the mapped function, its programs, and the programs of a single member."""
        self._mapping, self._mapped_programs, self._member_programs = mapping, mapped_programs, member_programs
        self._schedules: dict[Any, Schedule] = {}

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run all members."""
        if current.mesh_axes:  # each process would measure and choose chunks of its own
            return self._mapped_programs(args, kwargs)
        leaves, structure, dims, size = self._mapping.split(args)
        call = MappedCall(self._mapping, self._mapped_programs, self._member_programs, leaves, structure, dims, kwargs)
        if call.needs_grad():
            return self._mapping.mapped(*args, **kwargs)
        if self._mapping.devices and size:
            return concatenate(run_on_devices(call, size, self._mapping.devices, self._start)).tree()
        schedule, parts, done = self._start(call, size)
        if schedule.width >= size:
            return self._mapped_programs(args, kwargs)
        return concatenate([*parts, *run_in_chunks(call, done, size, schedule)]).tree()

    def _start(self, call: MappedCall, size: int) -> tuple[Schedule, list[ChunkResult], int]:
        """Return the schedule, and the results and number of the members that ran to find it."""
        shapes = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in call.leaves)
        key = (call.structure, tuple(call.dims), shapes, size)
        known = self._schedules.get(key)
        if known is not None:
            return known, [], 0
        width = self._mapping.chunk_size
        found = _measure_schedules(call, size) if width is None else (_fixed_schedule(call, size, width), [], 0)
        self._schedules[key] = found[0]
        return found


def _measure_schedules(call: MappedCall, size: int) -> tuple[Schedule, list[ChunkResult], int]:
    """Run the first members with each width. Return the fastest schedule, the results so far, and their count."""
    parts: list[ChunkResult] = []
    best, chosen, done = math.inf, Schedule(size, parallel=False), 0
    if not size:
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


def _fixed_schedule(call: MappedCall, size: int, width: int) -> Schedule:
    """Return the schedule of a given width. A program that is not native has fewer members at once if memory ends."""
    width = min(width, size)
    if not size:
        return Schedule(size, parallel=False)
    memory = call.peak_memory(width)
    if memory is None:
        return Schedule(width, parallel=True)
    return Schedule(max(min(width, int(CHUNK_MEMORY // max(memory / width, 1))), 1), parallel=False)
