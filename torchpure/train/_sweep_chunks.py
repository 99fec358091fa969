"""The members of a sweep in groups and chunks: what one program runs, here or in another process.

A group has the members that differ only in floats, tensors and keys. A chunk has consecutive members of a group. Where
chunks begin depends on the number of members alone, and so do the bits of results: not on threads, workers or times.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Key, Tree
from torchpure.errors import CheckError
from torchpure.jit import jit as jit_compile
from torchpure.transforms import vmap
from torchpure.transforms.engine import members_apart

from ._reports import collect
from .callbacks import Divergence
from .executors import pack, unpack
from .sweeps import Point

Outcome = tuple[Tree, list[Divergence]]  # results, and what fits with on_nonfinite="raise" found; stacked over members
_MANY = 512  # members from which on chunks are wide
_WIDTHS = (64, 16)  # of many members, and of few: multiples of 16 fill vector registers
_MAX_PROGRAMS = 8  # that a process keeps, of the newest sweeps whose chunks it runs


class Group(NamedTuple):
    """Members that one program runs."""

    indices: list[int]  # of the members in the sweep
    statics: dict[str, Any]  # what they share
    keys: Tensor | None  # shape (members, 2)
    columns: dict[str, Tensor]  # what they differ in, stacked over members
    width: int  # members of a chunk; the last one has members twice, to be as wide. 0: one run stands for all members
    jit: bool


def make_groups(members: list[Point], keys: Tensor | None, width: int | None, *, jit: bool) -> list[Group]:
    """Group the members that can run as one program."""
    groups: dict[Hashable, list[int]] = {}
    for index, point in enumerate(members):
        groups.setdefault(tuple(map(_group_key, point.items())), []).append(index)
    return [_group(members, keys, indices, width, jit) for indices in groups.values()]


def _group(members: list[Point], keys: Tensor | None, indices: list[int], width: int | None, jit: bool) -> Group:
    first = members[indices[0]]
    statics = {name: value for name, value in first.items() if not _is_batched(value)}
    names = [name for name in first if name not in statics]
    columns = {name: torch.stack([_as_tensor(members[index][name]) for index in indices]) for name in names}
    count = len(indices)
    if count == 1 or (keys is None and not columns):  # identical members run once
        width = 0
    elif width is None:
        width = _WIDTHS[0] if count >= _MANY or not jit else _WIDTHS[1]
    return Group(indices, statics, None if keys is None else keys[indices], columns, min(width, count), jit)


def _is_batched(value: Any) -> bool:
    return isinstance(value, float | Tensor)


def _group_key(item: tuple[str, Any]) -> Hashable:
    name, value = item
    if isinstance(value, Tensor):
        return name, value.shape, value.dtype, value.device
    if isinstance(value, float):
        return name, float
    try:
        hash(value)
    except TypeError:
        return name, id(value)
    return name, type(value), value


def _as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


class Chunk(NamedTuple):
    """Consecutive members of a group, in a form that can be sent."""

    program: str  # the same for all chunks of a group
    train: Callable[..., Tree]
    group: Group  # of these members alone; its tensors are packed


def split_group(train: Callable[..., Tree], group: Group, program: str) -> list[Chunk]:
    """Return the chunks of a group."""
    count = len(group.indices)
    if not group.width:
        return [Chunk(program, train, _take(group, torch.arange(1)))]
    places = torch.arange(-(-count // group.width) * group.width).clamp(max=count - 1)
    return [Chunk(program, train, _take(group, part)) for part in places.split(group.width)]


def _take(group: Group, places: Tensor) -> Group:
    keys, columns = tree.map(lambda leaf: leaf[places.to(leaf.device)], (group.keys, group.columns))
    keys, columns = pack((keys, columns))
    return group._replace(indices=[group.indices[place] for place in places.tolist()], keys=keys, columns=columns)


def join_chunks(group: Group, outcomes: Sequence[Outcome]) -> Outcome:
    """Join the outcomes of the chunks of a group, in their order."""
    if not group.width:
        return _for_all(group, outcomes[0])
    count = len(group.indices)
    return tree.map(lambda *leaves: torch.cat(leaves)[:count], *outcomes)


def _for_all(group: Group, outcome: Outcome) -> Outcome:
    count = len(group.indices)
    return tree.map(lambda leaf: leaf.expand(count, *leaf.shape), outcome)


def run_group(train: Callable[..., Tree], group: Group) -> Outcome:
    """Run all members of a group in this process.

    Law: the bits are those of `join_chunks` of `run_chunk` of its chunks.
    """
    count, program = len(group.indices), _make_program(train, group)
    padded = count if not (group.jit and group.width) else -(-count // group.width) * group.width
    places = torch.arange(padded).clamp(max=count - 1)
    keys, columns = tree.map(lambda leaf: leaf[places.to(leaf.device)], (group.keys, group.columns))
    outcome = _call(program, group, keys, columns)
    return tree.map(lambda leaf: leaf[:count], outcome) if group.width else _for_all(group, outcome)


def run_chunk(chunk: Chunk) -> Outcome:
    """Run the members of a chunk."""
    keys, columns = unpack((chunk.group.keys, chunk.group.columns))
    return _call(_program(chunk), chunk.group, keys, columns)


def _call(program: Callable[..., Outcome], group: Group, keys: Tensor | None, columns: dict[str, Tensor]) -> Outcome:
    if not group.width:
        keys, columns = tree.map(lambda leaf: leaf[0], (keys, columns))
    try:
        return program(keys, columns)
    except CheckError as error:  # its members count from the first of the group
        last = len(group.indices) - 1
        found = [(group.indices[min(first, last)], *others) for first, *others in error.members]
        raise CheckError(error.message, [*dict.fromkeys(found)], error.line) from None


def _make_program(train: Callable[..., Tree], group: Group) -> Callable[..., Outcome]:
    statics = group.statics

    @wraps(train, updated=())
    def run_member(key: Key | None, values: dict[str, Tensor]) -> Outcome:
        with collect() as found:
            try:
                return _as_tensors(train(key, **statics, **values)), found
            except TypeError as error:
                if key is None and "wanted a key" in str(error):
                    raise TypeError(
                        f"sweep: train uses its key; pass key=tp.random.key(0) to sweep ({error})"
                    ) from None
                raise

    run = vmap(run_member, chunk_size=group.width) if group.width else run_member
    return jit_compile(run) if group.jit else members_apart()(run)


def _as_tensors(result: Tree) -> Tree:
    leaves, structure = tree.flatten(result)
    for path, leaf in zip(tree.paths(result), leaves, strict=True):
        if not isinstance(leaf, Tensor | bool | int | float | complex):
            raise TypeError(f"sweep: train must return tensors and numbers, got {tree.describe(leaf)} at `{path}`")
    return tree.unflatten(structure, [leaf if isinstance(leaf, Tensor) else torch.tensor(leaf) for leaf in leaves])


_PROGRAMS: dict[str, Callable[..., Outcome]] = {}  # of this process, by Chunk.program: each is compiled once
_LOCK = threading.Lock()


def _program(chunk: Chunk) -> Callable[..., Outcome]:
    with _LOCK:
        found = _PROGRAMS.pop(chunk.program, None) or _make_program(chunk.train, chunk.group)
        _PROGRAMS[chunk.program] = found  # the newest is the last
        while len(_PROGRAMS) > _MAX_PROGRAMS:
            del _PROGRAMS[next(iter(_PROGRAMS))]
    return found
