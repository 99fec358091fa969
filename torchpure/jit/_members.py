"""Many members of one program: `jit(vmap(fn))` runs chunks of them, the whole run of one chunk before the next.

Law: `jit(vmap(fn))(xs)[i] == jit(fn)(xs[i])`, whatever the chunks.

A chunk fits in cache, and chunks run on all cores. Whether lanes of vectors run over members or over what each member
computes is found by measurement: the first chunks of the first call run each way, and the fastest is kept.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from torchpure import tree
from torchpure.errors import CheckError
from torchpure.transforms import Mapping

WIDTHS = (64, 16, 1)  # members at once that are tried; 1 is the program of one member, run on each
FEW = 8  # below this many members all run at once
_DIFFER = "jit: the results of some members of a vmap against those of others"
_TRIED = 4  # members that the program of one is timed on


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
        self._widths: dict[Any, int] = {}

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run all members."""
        leaves, structure, dims, size = self._mapping.split(args)
        shapes = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (structure, tuple(dims), shapes)
        call = _Call(self._mapping, self._whole, self._one, leaves, structure, dims, kwargs)
        width = self._widths.get(key)
        parts: list[Part] = []
        at = 0
        if width is None:
            width, parts, at = _measured(call, size)
            self._widths[key] = width
        if width >= size:
            return self._whole(args, kwargs)
        parts.extend(_spread(call, at, size, width))
        return _joined(parts)


class Programs(Protocol):
    """The compiled programs of a function."""

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the one for these arguments."""

    def on_one_thread(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Tell whether it leaves the other threads free."""
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
            return Part(*tree.flatten(result), self.mapping.places(result))
        singles = []
        for number in range(first, first + count):
            args = self.arguments(lambda leaf, dim, at=number: leaf.select(dim, at).contiguous())
            with _counted(number):
                singles.append(self.one(args, self.kwargs))
        places = self.mapping.places(singles[0])
        structure = tree.structure(singles[0])
        columns = zip(*(tree.ordered(structure, one, _DIFFER) for one in singles), strict=True)
        stacked = [
            column[0] if place is None else torch.stack(column, place)
            for column, place in zip(columns, places, strict=True)
        ]
        return Part(stacked, structure, places)

    def native(self, width: int) -> bool:
        """Tell whether a program of so many members runs on one thread."""
        if width == 1:
            return self.one.on_one_thread(
                self.arguments(lambda leaf, dim: leaf.select(dim, 0).contiguous()), self.kwargs
            )
        args = self.arguments(lambda leaf, dim: leaf.narrow(dim, 0, width).contiguous())
        return self.whole.on_one_thread(args, self.kwargs)


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


def _measured(call: _Call, size: int) -> tuple[int, list[Part], int]:
    """Run the first members each way: the fastest width, what has been computed, and how many members that is."""
    parts: list[Part] = []
    best, chosen, at = float("inf"), size, 0
    asks = torch.is_grad_enabled() and any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in call.leaves)
    if size < FEW or asks:
        return size, parts, 0
    for width in WIDTHS:
        count = width if width > 1 else min(_TRIED, size)
        if at + count > size or not call.native(width):
            continue
        start = perf_counter()
        parts.append(call.run(at, count, width))
        at += count
        seconds = (perf_counter() - start) / count
        if seconds < best:
            best, chosen = seconds, width
    return chosen, parts, at


def _spread(call: _Call, first: int, size: int, width: int) -> list[Part]:
    """Run the rest in chunks on all threads; the last chunk overlaps, so that there is one program."""
    workers = max(torch.get_num_threads(), 1)
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
