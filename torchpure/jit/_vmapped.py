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

WIDTHS = (64, 16, 1)  # members at once that are tried; 1 is the program of one member, run on each
FEW = 8  # below this many members all run at once
_DIFFER = "jit: the results of some members of a vmap against those of others"
_TRIED = 4  # members that the program of one is timed on
MEMORY = 1 << 28  # bytes that the members of one chunk may need; more at once are not faster
_CUDA = 4  # a chunk may need this part of the memory that is free there: one fourth


class Way(NamedTuple):
    """How members run."""

    width: int  # so many at once
    apart: bool  # several chunks at once, each on one thread


class Part(NamedTuple):
    """Results of some members, which each leaf has at its place."""

    leaves: list[Any]
    structure: Any
    places: list[int | None]


class Members:
    """The compiled form of one mapped function."""

    def __init__(self, mapping: Mapping, whole: "Programs", one: "Programs") -> None:
        """Take the mapped function, and what compiles it and the function of one member."""
        self._mapping, self._whole, self._one = mapping, whole, one
        self._ways: dict[Any, Way] = {}

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run all members."""
        leaves, structure, dims, size = self._mapping.split(args)
        shapes = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (structure, tuple(dims), shapes)
        call = _Call(self._mapping, self._whole, self._one, leaves, structure, dims, kwargs)
        way = self._ways.get(key)
        parts: list[Part] = []
        at = 0
        if way is None:
            way, parts, at = _measured(call, size)
            self._ways[key] = way
        if way.width >= size:
            return self._whole(args, kwargs)
        parts.extend(_spread(call, at, size, way))
        return _joined(parts)


class Programs(Protocol):
    """The compiled programs of a function."""

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the one for these arguments."""

    def memory(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Return the bytes that the one for these needs; None if it is one of C++, which leaves other threads free."""
        ...


class _Call(NamedTuple):
    mapping: Mapping
    whole: Programs
    one: Programs
    leaves: list[Any]
    structure: Any
    dims: list[int | None]
    kwargs: dict[str, Any]

    def arguments(self, take: Callable[[Tensor, int], Tensor]) -> Any:
        """Return the arguments with parts of what is mapped."""
        taken = [leaf if dim is None else take(leaf, dim) for leaf, dim in zip(self.leaves, self.dims, strict=True)]
        return tree.unflatten(self.structure, taken)

    def run(self, first: int, count: int, width: int) -> Part:
        """Run members at once, or one after another."""
        if width > 1:
            args = self.arguments(lambda leaf, dim: leaf.narrow(dim, first, count).contiguous())
            with _counted(first, count):
                result = self.whole(args, self.kwargs)
            return Part(*tree.flatten(result), self.mapping.result_dims(result))
        singles = []
        for number in range(first, first + count):
            args = self.arguments(lambda leaf, dim, at=number: leaf.select(dim, at).contiguous())
            with _counted(number):
                singles.append(self.one(args, self.kwargs))
        places = self.mapping.result_dims(singles[0])
        structure = tree.structure(singles[0])
        columns = zip(*(tree.ordered(structure, one, _DIFFER) for one in singles), strict=True)
        stacked = [
            column[0] if place is None else torch.stack(column, place)
            for column, place in zip(columns, places, strict=True)
        ]
        return Part(stacked, structure, places)

    def memory(self, width: int) -> int | None:
        """Return the bytes that a program of so many members needs; None for one that runs on one thread."""
        if width == 1:
            args = self.arguments(lambda leaf, dim: leaf.select(dim, 0).contiguous())
            return self.one.memory(args, self.kwargs)
        args = self.arguments(lambda leaf, dim: leaf.narrow(dim, 0, width).contiguous())
        return self.whole.memory(args, self.kwargs)

    def fitting(self, size: int, needed: float) -> Way:
        """Return the way in which members that need so much memory each fit: at once, or in chunks of one size."""
        device = next((leaf.device for leaf in self.leaves if isinstance(leaf, Tensor) and leaf.is_cuda), None)
        limit = MEMORY if device is None else torch.cuda.mem_get_info(device)[0] // _CUDA
        chunks = math.ceil(size / max(limit // max(needed, 1), 1))
        return Way(math.ceil(size / chunks), apart=False)


@contextmanager
def _counted(first: int, count: int | None = None) -> Iterator[None]:
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


def _measured(call: _Call, size: int) -> tuple[Way, list[Part], int]:
    """Run the first members each way: the fastest, what has been computed, and how many members that is."""
    parts: list[Part] = []
    best, chosen, at = math.inf, Way(size, apart=False), 0
    asks = torch.is_grad_enabled() and any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in call.leaves)
    if asks or not size:
        return chosen, parts, 0
    if size < FEW:
        return call.fitting(size, (call.memory(size) or 0) / size), parts, 0
    needed = 0.0  # bytes of one member, where no program of several is one of C++
    for width in WIDTHS:
        count = width if width > 1 else min(_TRIED, size)
        if at + count > size or (needed and width > 1):
            continue
        memory = call.memory(width)
        if memory is not None:
            needed = needed or memory / width
            continue
        start = perf_counter()
        parts.append(call.run(at, count, width))
        at += count
        seconds = (perf_counter() - start) / count
        if seconds < best:
            best, chosen = seconds, Way(width, apart=True)
    return chosen if parts else call.fitting(size, needed), parts, at


def _spread(call: _Call, first: int, size: int, way: Way) -> list[Part]:
    """Run the rest in chunks, on all threads; the last chunk overlaps, so that there is one program."""
    width, workers = way.width, max(torch.get_num_threads(), 1) if way.apart else 1
    step = width if width > 1 else max(-(-(size - first) // (4 * workers)), 1)
    starts = list(range(first, size, step))
    recording = torch.is_grad_enabled()

    def chunk(start: int) -> Part:
        with torch.set_grad_enabled(recording):  # a setting of the thread
            if width == 1 or start + width <= size:
                return call.run(start, min(step, size - start), width)
            return _last(call.run(size - width, width, width), size - start)

    if workers == 1 or len(starts) < 2:
        return list(map(chunk, starts))
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(chunk, starts))


def _last(part: Part, count: int) -> Part:
    """Keep the last members of a part."""
    leaves = [
        leaf if place is None else leaf.narrow(place, leaf.shape[place] - count, count)
        for leaf, place in zip(part.leaves, part.places, strict=True)
    ]
    return part._replace(leaves=leaves)


def _joined(parts: Sequence[Part]) -> Any:
    places, structure = parts[0].places, parts[0].structure
    columns = zip(*(_arranged(part, structure) for part in parts), strict=True)
    joined = [
        column[0] if place is None else torch.cat(column, place) for column, place in zip(columns, places, strict=True)
    ]
    return tree.unflatten(structure, joined)


def _arranged(part: Part, structure: Any) -> list[Any]:
    if part.structure == structure:
        return part.leaves
    return tree.ordered(structure, tree.unflatten(part.structure, part.leaves), _DIFFER)
