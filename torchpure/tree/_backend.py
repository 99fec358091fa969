"""The only file that imports the pytree backends.

Eager code uses optree, which is several times faster. While `torch.compile` traces, torch's own pytree is used,
because it alone can be traced. Both follow the same three rules: dicts keep their insertion order, None is an empty
subtree, and every registered container is registered in both.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import optree
from torch.compiler import is_dynamo_compiling

from torchpure._torch import pytree as torch_pytree
from torchpure._types import Tree

NAMESPACE = "torchpure"
C = TypeVar("C", bound=type)

# This setting holds for our own namespace only: other users of optree do not see it.
_insertion_order = optree.dict_insertion_ordered(True, namespace=NAMESPACE)
_insertion_order.__enter__()


class _TracedStructure(NamedTuple):
    spec: torch_pytree.TreeSpec
    empty: tuple[bool, ...]  # True for each leaf of the spec that is None


Structure = optree.PyTreeSpec | _TracedStructure


def flatten(tree: Tree) -> tuple[list[Any], Structure]:
    """Split a tree into its leaves, in insertion order, and its structure.

    >>> flatten({"b": 1, "a": (2, None)})[0]
    [1, 2]
    """
    if is_dynamo_compiling():
        leaves, spec = torch_pytree.tree_flatten(tree)
        structure = _TracedStructure(spec, tuple(leaf is None for leaf in leaves))
        return [leaf for leaf in leaves if leaf is not None], structure
    return optree.tree_flatten(tree, namespace=NAMESPACE)


def flatten_holes(tree: Tree) -> tuple[list[Any], Structure]:
    """Split a tree into leaves and structure, with None as a leaf.

    >>> flatten_holes({"b": 1, "a": (2, None)})[0]
    [1, 2, None]
    """
    if is_dynamo_compiling():
        leaves, spec = torch_pytree.tree_flatten(tree)
        return leaves, _TracedStructure(spec, (False,) * len(leaves))
    return optree.tree_flatten(tree, none_is_leaf=True, namespace=NAMESPACE)


def unflatten(structure: Structure, leaves: Iterable[Any]) -> Tree:
    """Build a tree from its structure and leaves: the inverse of `flatten`."""
    if isinstance(structure, _TracedStructure):
        remaining = iter(leaves)
        full = [None if empty else next(remaining) for empty in structure.empty]
        return torch_pytree.tree_unflatten(full, structure.spec)
    return optree.tree_unflatten(structure, leaves)


def size(structure: Structure) -> int:
    """Count the leaves of a structure."""
    return structure.empty.count(False) if isinstance(structure, _TracedStructure) else structure.num_leaves


def flatten_up_to(structure: Structure, tree: Tree) -> list[Any]:
    """List the subtrees of `tree` at the leaves of `structure`; raise ValueError if `tree` has other nodes."""
    if isinstance(structure, _TracedStructure):
        parts = structure.spec.flatten_up_to(tree)
        return [part for part, empty in zip(parts, structure.empty, strict=True) if not empty]
    return structure.flatten_up_to(tree)


def accessors(tree: Tree) -> list[tuple[Any, ...]]:
    """List the path to each leaf as a tuple of keys, indices and field names."""
    return [tuple(map(_entry_name, accessor)) for accessor in optree.tree_accessors(tree, namespace=NAMESPACE)]


def children(tree: Tree) -> dict[Any, Tree] | None:
    """Return the direct children of a node by name; None for a leaf."""
    if optree.tree_is_leaf(tree, namespace=NAMESPACE):
        return None
    if tree is None:
        return {}
    level = optree.tree_flatten_one_level(tree, namespace=NAMESPACE)
    names = getattr(tree, "_fields", level.entries)
    return dict(zip(names, level.children, strict=True))


def _entry_name(entry: Any) -> Any:
    return getattr(entry, "field", entry.entry)


def register_dataclass(cls: C) -> C:
    """Register a dataclass as a tree of its fields, for this library and for torch.func.

    Raises:
        TypeError: `cls` is not a dataclass.

    >>> @register_dataclass
    ... @dataclasses.dataclass
    ... class Point:
    ...     x: float
    ...     y: float
    >>> flatten(Point(1.0, 2.0))[0]
    [1.0, 2.0]
    """
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        raise TypeError(f"register_dataclass: wanted a dataclass, got {cls!r}")
    names = tuple(field.name for field in dataclasses.fields(cls) if field.init)

    def values(node: Any) -> list[Any]:
        return [getattr(node, name) for name in names]

    def build(leaves: Iterable[Any]) -> Any:
        return cls(**dict(zip(names, leaves, strict=True)))

    optree.register_pytree_node(
        cls,
        lambda node: (values(node), None, names),
        lambda _, leaves: build(leaves),
        path_entry_type=optree.GetAttrEntry,
        namespace=NAMESPACE,
    )
    torch_pytree.register_pytree_node(cls, lambda node: (values(node), None), lambda leaves, _: build(leaves))
    return cls
