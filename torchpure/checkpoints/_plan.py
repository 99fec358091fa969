"""What a save will write: the structure of the tree, a record of each leaf, and the tensors of each file."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from blake3 import blake3
from torch import Tensor
from torch.nn import Parameter

from torchpure import tree
from torchpure._dtensors import is_dtensor
from torchpure._torch import FakeTensor, functorch
from torchpure._types import Tree
from torchpure.errors import InputError, TransformError
from torchpure.transforms.engine import in_outermost_grad

from ._dtypes import STORED, dtype_name, num_bytes
from ._manifest import Leaf, ShardedRecord, ShardRecord, TensorRecord, ValueRecord
from ._structure import Keys, Node, dotted, take_apart
from ._tensor_file import data_of
from ._values import KINDS, kind_of
from .sharded import Box, boxes_of, check_placements, is_alone, local_part, owned, whole

_LEAST_FILE, _MOST_FILES = 128 << 20, 64  # files of this size are hashed side by side


class Plan(NamedTuple):
    """A tree that is ready to be written."""

    tree: Node
    leaves: tuple[Leaf, ...]
    tensors: list[list[Tensor]]  # of each file, in the order of its records; of a file of another process, none
    owners: tuple[int, ...] = ()  # the process that writes each file; empty if the tree has no DTensors
    summaries: tuple[str, ...] = ()  # of the leaves, on which the processes must agree


def check_outside(caller: str) -> None:
    """Check that no transform is active: files are not part of a pure function.

    Raises:
        TransformError: one is.
    """
    if in_outermost_grad() or not tree.unwatched():
        raise TransformError(f"{caller}: called inside a transform or a trace; call it outside, on the results")


def make_plan(value: Tree, caller: str) -> Plan:
    """Check each leaf of a tree, and choose its file.

    Raises:
        InputError: a leaf or a key cannot be stored.
        TransformError: a transform is active, or a leaf is traced.
    """
    check_outside(caller)
    node, leaves = take_apart(value, caller)
    tensors = [leaf for path, leaf in leaves if _is_tensor(leaf, path, caller)]
    total = sum(leaf.numel() * leaf.element_size() for leaf in tensors)
    limit = max(_LEAST_FILE, total // _MOST_FILES)
    if any(map(is_dtensor, tensors)):
        return _plan_shards(node, leaves, limit)
    records: list[Leaf] = []
    files: list[list[Tensor]] = []
    names: set[str] = {"__metadata__"}  # of the format
    room = -1
    for path, leaf in leaves:
        if not isinstance(leaf, Tensor):
            records.append(ValueRecord(dotted(path), leaf))
            continue
        size = num_bytes(dtype_name(leaf.dtype), tuple(leaf.shape))
        if size > room:
            files.append([])
            room = limit
        room -= size
        files[-1].append(leaf)
        name = _unused_name(dotted(path), names, len(records))
        records.append(TensorRecord(dotted(path), len(files) - 1, name, dtype_name(leaf.dtype), tuple(leaf.shape)))
    return Plan(node, tuple(records), files)


class _Part(NamedTuple):
    """A part of a tensor, in a file of one process."""

    leaf: int
    owner: int
    number: int  # of the file among those of its owner
    name: str
    box: Box


def _plan_shards(node: Node, leaves: list[tuple[Keys, Any]], limit: int) -> Plan:
    """Plan the files of all processes: each process makes the same plan, and keeps its own tensors."""
    rank, size = dist.get_rank(), dist.get_world_size()
    parts, counts = _place_parts(leaves, limit, size)
    first = [sum(counts[:owner]) for owner in range(size)]  # the files of process 0, then those of process 1, …
    tensors: list[list[Tensor]] = [[] for _ in range(sum(counts))]
    shards: dict[int, list[ShardRecord]] = {}
    for part in parts:
        file = first[part.owner] + part.number
        shards.setdefault(part.leaf, []).append(ShardRecord(file, part.name, *part.box))
        if part.owner == rank:
            leaf = leaves[part.leaf][1]
            tensors[file].append(local_part(leaf) if is_dtensor(leaf) else leaf)
    records = [_record(path, leaf, tuple(shards.get(number, ()))) for number, (path, leaf) in enumerate(leaves)]
    owners = tuple([owner for owner, count in enumerate(counts) for _ in range(count)])
    return Plan(
        node, tuple(records), tensors, owners, () if is_alone() else tuple([_summary(leaf) for _, leaf in leaves])
    )


def _place_parts(leaves: list[tuple[Keys, Any]], limit: int, size: int) -> tuple[list[_Part], list[int]]:
    """Return the parts of all tensors, and how many files each process writes."""
    names: set[str] = {"__metadata__"}
    loads, counts, room = [0] * size, [0] * size, [-1] * size  # of each process
    parts = []
    for number, (path, leaf) in enumerate(leaves):
        if isinstance(leaf, Tensor):
            boxes = boxes_of(leaf) if is_dtensor(leaf) else [whole(leaf.shape)] * size
            name = _unused_name(dotted(path), names, number)
            for owner, box in owned(boxes, leaf.element_size(), loads):
                count = box.numel * leaf.element_size()
                if count > room[owner]:
                    counts[owner], room[owner] = counts[owner] + 1, limit
                room[owner] -= count
                parts.append(_Part(number, owner, counts[owner] - 1, name, box))
    return parts, counts


def _record(path: Keys, leaf: Any, shards: tuple[ShardRecord, ...]) -> Leaf:
    if not isinstance(leaf, Tensor):
        return ValueRecord(dotted(path), leaf)
    return ShardedRecord(dotted(path), dtype_name(leaf.dtype), tuple(leaf.shape), shards)


def _summary(leaf: Any) -> str:
    """Describe what all processes have in common of a leaf: of a DTensor, all but its values."""
    if not isinstance(leaf, Tensor):
        text = repr(leaf)
        more = "" if len(text) <= 60 else f"… with the hash {blake3(text.encode()).hexdigest()[:8]}"
        return f"{type(leaf).__name__} {text[:60]}{more}"
    if is_dtensor(leaf):
        return f"{dtype_name(leaf.dtype)} of shape {tuple(leaf.shape)} laid out as {tuple(leaf.placements)}"
    return (
        f"{dtype_name(leaf.dtype)} of shape {tuple(leaf.shape)} with the hash {blake3(data_of(leaf)).hexdigest()[:8]}"
    )


def _unused_name(path: str, names: set[str], number: int) -> str:
    """Return the path, or a longer name if it is taken: `{"a.b": …}` and `{"a": {"b": …}}` have one path."""
    name = path if path.isprintable() else f"leaf-{number}"
    while name in names:
        name = f"{name}~{number}"
    names.add(name)
    return name


def _is_tensor(leaf: Any, path: Keys, caller: str) -> bool:
    if not isinstance(leaf, Tensor):
        if kind_of(leaf) is None:
            raise InputError(f"{caller}: leaf `{dotted(path)}` is {_name(leaf)}; wanted {KINDS}")
        return False
    if isinstance(leaf, FakeTensor) or functorch.is_functorch_wrapped_tensor(leaf):
        raise TransformError(f"{caller}: leaf `{dotted(path)}` is a traced tensor; save the results of the transform")
    if is_dtensor(leaf):
        check_placements(leaf, f"{caller}: leaf `{dotted(path)}`")
        return _is_tensor(local_part(leaf), path, caller)
    if type(leaf) not in (Tensor, Parameter):
        raise InputError(f"{caller}: leaf `{dotted(path)}` is {_name(leaf)}; wanted a plain tensor")
    if leaf.layout is not torch.strided or leaf.is_meta or dtype_name(leaf.dtype) not in STORED:
        kind = "meta" if leaf.is_meta else f"{leaf.layout}".removeprefix("torch.")
        raise InputError(
            f"{caller}: leaf `{dotted(path)}` is a {kind} tensor of {leaf.dtype}; wanted a strided tensor with values, "
            f"of one of the dtypes {', '.join(STORED)}"
        )
    return True


def _name(leaf: Any) -> str:
    kind = type(leaf)
    advice = {"ndarray": " (use torch.from_numpy)", "Module": " (use its parameters)"}.get(kind.__name__, "")
    return f"a {kind.__module__.removeprefix('builtins.')}.{kind.__qualname__}{advice}".replace("builtins.", "")
