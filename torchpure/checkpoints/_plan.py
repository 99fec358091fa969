"""What a save will write: the structure of the tree, a record of each leaf, and the tensors of each file."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from torchpure import tree
from torchpure._torch import FakeTensor, functorch
from torchpure._types import Tree
from torchpure.errors import InputError, TransformError
from torchpure.transforms.engine import in_outermost_grad

from ._dtypes import STORED, dtype_name, num_bytes
from ._manifest import Leaf, TensorRecord, ValueRecord
from ._structure import Keys, Node, dotted, take_apart
from ._values import KINDS, kind_of

_LEAST_FILE, _MOST_FILES = 128 << 20, 64  # files of this size are hashed side by side


class Plan(NamedTuple):
    """A tree that is ready to be written."""

    tree: Node
    leaves: tuple[Leaf, ...]
    tensors: list[list[Tensor]]  # of each file, in the order of its records


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
