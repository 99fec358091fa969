"""Which classes are trees: those that torch's registry lists, whoever registered them, and when.

optree takes trees apart in eager code, and has a registry of its own. `synchronize` copies new entries of torch's
registry to it. `_backend.py` compares the sizes of `NODES` and `SEEN` before each use of optree, so a class is a tree
from the moment of its registration.
"""

import dataclasses
import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import optree
import torch
from torch import Tensor

from torchpure._torch import pytree as torch_pytree
from torchpure._types import Tree
from torchpure.errors import StructureError

NAMESPACE = "torchpure"
NODES = torch_pytree.SUPPORTED_NODES
SEEN: dict[Any, bool] = {}  # class -> whether it was copied to optree; the others are built in, or leaves
C = TypeVar("C", bound=type)

_BUILT_IN = (tuple, list, dict, OrderedDict, defaultdict, deque)
_LEAF_CLASSES = (Tensor, torch.Size)  # a shape is one leaf: `tree.map(torch.zeros, shapes)`
_lock = threading.Lock()


class Kept:
    """What a node of a registered class keeps besides its children; equal by value, and always hashable."""

    __slots__ = ("kind", "value")

    def __init__(self, kind: type, value: Any) -> None:
        self.kind, self.value = kind, value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Kept) or self.kind is not other.kind:
            return False
        try:
            return self.value is other.value or bool(self.value == other.value)
        except (RuntimeError, ValueError):  # == of tensors or arrays gives no single truth
            raise StructureError(
                f"tree: two {self.kind.__name__} nodes cannot be compared, because what they keep besides their "
                f"children, {self}, holds tensors. Make these tensors children"
            ) from None

    def __hash__(self) -> int:
        try:
            return hash((self.kind, self.value))
        except TypeError:  # a list of keys, for example
            return hash(self.kind)

    def __repr__(self) -> str:
        return f"{self.value!r:.60}"


def synchronize() -> None:
    """Copy what is new in torch's registry to optree's, and drop what is gone."""
    with _lock:
        for kind in [kind for kind in SEEN if kind not in NODES]:
            if SEEN.pop(kind):
                optree.unregister_pytree_node(kind, namespace=NAMESPACE)
        for kind in [kind for kind in list(NODES) if kind not in SEEN]:
            custom = _is_custom(kind)
            if custom:
                _copy(kind)
            SEEN[kind] = custom


def is_container(kind: Any) -> bool:
    """Return whether a class is in torch's registry, and not one of those that are leaves here."""
    return kind in NODES and not issubclass(kind, _LEAF_CLASSES)


def _is_custom(kind: Any) -> bool:
    if not isinstance(kind, type) or kind in _BUILT_IN or issubclass(kind, _LEAF_CLASSES):
        return False
    if kind.__module__.startswith("torch._"):  # for torch's compiler alone; optree compares each leaf with each class
        return False
    return not optree.is_namedtuple_class(kind) and not optree.is_structseq_class(kind)


def _copy(kind: type) -> None:
    def flatten(node: Any) -> tuple[Iterable[Any], Kept | None]:
        children, context = NODES[kind].flatten_fn(node)
        return children, None if context is None else Kept(kind, context)

    def unflatten(kept: Any, children: Iterable[Any]) -> Any:
        return NODES[kind].unflatten_fn(list(children), None if kept is None else kept.value)

    optree.register_pytree_node(kind, flatten, unflatten, namespace=NAMESPACE)


def name_children(node: Any, children: Sequence[Any]) -> dict[Any, Any]:
    """Name the children of a node of a registered class: by its keys or fields, else by their numbers.

    A field that is None is a child too, although torch and transformers leave it out.
    """
    names = _names(node)
    if len({*names}) != len(children):
        names = list(range(len(children)))
    return dict(zip(names, children, strict=True)) | dict.fromkeys(_empty_fields(node, names))


def _names(node: Any) -> list[Any]:
    with_keys = NODES[type(node)].flatten_with_keys_fn
    return [_key_name(key) for key, _ in with_keys(node)[0]] if with_keys else []


def _empty_fields(node: Any, names: list[Any]) -> list[str]:
    if isinstance(node, dict):
        fields = dataclasses.fields(node) if dataclasses.is_dataclass(node) else ()
        return [field.name for field in fields if field.name not in node]
    match NODES[type(node)].flatten_fn(node)[1]:
        case [list() as filled, list() as empty] if filled == names:  # what torch keeps of a dataclass
            return [name for name in empty if getattr(node, name, node) is None]
    return []


def _key_name(key: Any) -> Any:
    match key:
        case torch_pytree.GetAttrKey():
            return key.name
        case torch_pytree.MappingKey():
            return key.key
        case torch_pytree.SequenceKey():
            return key.idx
    return str(key)


def kept(node: Any) -> Kept | None:
    """Return what a node of a registered class keeps; None if that is nothing, or only the names of its children."""
    if not SEEN.get(type(node)):
        return None
    _, context = NODES[type(node)].flatten_fn(node)
    names = _names(node)
    only_names = context in (None, names, [names, _empty_fields(node, names)])
    return None if only_names else Kept(type(node), context)


def register(
    cls: C,
    flatten: Callable[[Any], tuple[Iterable[Tree], Any]],
    unflatten: Callable[[Any, Sequence[Tree]], Any],
    *,
    names: Callable[[Any], Sequence[Any]] | None = None,
) -> C:
    """Register a class as a tree, for this library and for torch.func.

    `flatten(node)` returns the children and the rest, which must be comparable with `==`. `unflatten(rest, children)`
    builds a node. `names(node)` names the children in error messages and paths; the default is 0, 1 and so on. A class
    that is registered with `torch.utils._pytree` is a tree without this call.

    Law: `unflatten(*reversed(flatten(node))) == node`.

    Raises:
        TypeError: `cls` is not a class, or `flatten` or `unflatten` cannot be called.
        ValueError: `cls` is a tree already, or always a leaf.

    >>> class Interval:
    ...     def __init__(self, low, high, unit):
    ...         self.low, self.high, self.unit = low, high, unit
    >>> _ = register(Interval, lambda i: ((i.low, i.high), i.unit), lambda unit, ends: Interval(*ends, unit))
    >>> from torchpure import tree
    >>> tree.leaves({"span": Interval(1, 2, "m")})
    [1, 2]
    """
    _check_class(cls, flatten, unflatten)

    def flatten_in_torch(node: Any) -> tuple[list[Any], Any]:
        children, rest = flatten(node)
        return list(children), rest

    def flatten_with_keys(node: Any) -> tuple[list[tuple[Any, Any]], Any]:
        children, rest = flatten_in_torch(node)
        keys = range(len(children)) if names is None else names(node)
        return [(torch_pytree.MappingKey(key), child) for key, child in zip(keys, children, strict=True)], rest

    torch_pytree.register_pytree_node(
        cls,
        flatten_in_torch,
        lambda children, rest: unflatten(rest, list(children)),
        flatten_with_keys_fn=flatten_with_keys,
    )
    return cls


def _check_class(cls: Any, flatten: Any, unflatten: Any) -> None:
    if not isinstance(cls, type):
        raise TypeError(f"tree.register: wanted a class, got {cls!r:.60}")
    for name, function in (("flatten", flatten), ("unflatten", unflatten)):
        if not callable(function):
            raise TypeError(f"tree.register: {name} must be a function, got {function!r:.60}")
    if issubclass(cls, _LEAF_CLASSES) or cls in (bool, int, float, complex, str, bytes):
        raise ValueError(f"tree.register: {cls.__name__} is always a leaf; wanted a class of containers")
    if cls in NODES or optree.is_namedtuple_class(cls) or optree.is_structseq_class(cls) or cls is type(None):
        raise ValueError(f"tree.register: {cls.__name__} is a tree already")


def register_dataclass(cls: C) -> C:
    """Register a dataclass as a tree of its fields, for this library and for torch.func.

    A class that is a tree already stays as it is.

    Raises:
        TypeError: `cls` is not a dataclass.

    >>> @register_dataclass
    ... @dataclasses.dataclass
    ... class Point:
    ...     x: float
    ...     y: float
    >>> from torchpure import tree
    >>> tree.leaves(Point(1.0, 2.0))
    [1.0, 2.0]
    """
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        raise TypeError(f"register_dataclass: wanted a dataclass, got {cls!r}")
    if cls in NODES:
        return cls
    fields = tuple(field.name for field in dataclasses.fields(cls) if field.init)
    return register(
        cls,
        lambda node: ([getattr(node, name) for name in fields], None),
        lambda _, values: cls(**dict(zip(fields, values, strict=True))),
        names=lambda node: fields,
    )
