"""Take trees apart and build them: the only file that calls a pytree backend.

Eager code uses optree, which is several times faster, and which `torch.compile` cannot trace. There the functions below
run, over torch's registry of containers: torch's own pytree functions take several times as long to trace. Both follow
the same three rules: dicts keep their insertion order, None is an empty subtree, and every class in torch's registry is
a container (`_registry.py`).
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import optree
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure._types import Tree

from ._registry import NAMESPACE, NODES, SEEN, is_container, name_children, synchronize

# This setting holds for our own namespace only: other users of optree do not see it.
_insertion_order = optree.dict_insertion_ordered(True, namespace=NAMESPACE)
_insertion_order.__enter__()


# The structure of a node that `torch.compile` traces: the type of the container, what torch's registry keeps besides
# the children (the keys of a dict), and the structures of the children. Plain tuples are the fastest to trace.
_Node = tuple[Any, Any, list[Any]]
_LEAF: _Node = (Tensor, None, [])
_NONE: _Node = (None, None, [])
_DICTS = (dict, OrderedDict, defaultdict)


class _TracedStructure(NamedTuple):
    root: _Node


Structure = optree.PyTreeSpec | _TracedStructure


def flatten(tree: Tree) -> tuple[list[Any], Structure]:
    """Split a tree into its leaves, in insertion order, and its structure.

    >>> flatten({"b": 1, "a": (2, None)})[0]
    [1, 2]
    """
    if is_dynamo_compiling():
        leaves: list[Any] = []
        return leaves, _TracedStructure(_flatten_traced(tree, _NONE, leaves))
    if len(NODES) != len(SEEN):
        synchronize()
    return optree.tree_flatten(tree, namespace=NAMESPACE)


def flatten_holes(tree: Tree) -> tuple[list[Any], Structure]:
    """Split a tree into leaves and structure, with None as a leaf.

    >>> flatten_holes({"b": 1, "a": (2, None)})[0]
    [1, 2, None]
    """
    if is_dynamo_compiling():
        leaves: list[Any] = []
        return leaves, _TracedStructure(_flatten_traced(tree, _LEAF, leaves))
    if len(NODES) != len(SEEN):
        synchronize()
    return optree.tree_flatten(tree, none_is_leaf=True, namespace=NAMESPACE)


def unflatten(structure: Structure, leaves: Iterable[Any]) -> Tree:
    """Build a tree from its structure and leaves: the inverse of `flatten`.

    >>> leaves, structure = flatten({"a": 1, "b": [2]})
    >>> unflatten(structure, [10, 20])
    {'a': 10, 'b': [20]}
    """
    if isinstance(structure, _TracedStructure):
        return _unflatten_traced(structure.root, iter(leaves))
    return optree.tree_unflatten(structure, leaves)


def size(structure: Structure) -> int:
    """Count the leaves of a structure."""
    return _size_traced(structure.root) if isinstance(structure, _TracedStructure) else structure.num_leaves


def flatten_up_to(structure: Structure, tree: Tree) -> list[Any]:
    """List the subtrees of `tree` at the leaves of `structure`; raise ValueError if `tree` has other nodes."""
    if isinstance(structure, _TracedStructure):
        found: list[Any] = []
        _descend_traced(structure.root, tree, found)
        return found
    return structure.flatten_up_to(tree)


def _flatten_traced(tree: Tree, none: _Node, leaves: list[Any]) -> _Node:
    """Append the leaves of a tree and return its structure, where None has the structure `none`."""
    if tree is None and none is _NONE:
        return none
    kind = type(tree)
    found = None if tree is None or isinstance(tree, Tensor) else _children_traced(kind, tree)
    if found is None:
        leaves.append(tree)
        return _LEAF
    children, context = found
    below = []
    for child in children:
        if isinstance(child, Tensor):  # told apart here too, because each call costs as much as ten lines
            leaves.append(child)
            below.append(_LEAF)
        else:
            below.append(_flatten_traced(child, none, leaves))
    return kind, context, below


def _children_traced(kind: Any, tree: Tree) -> tuple[list[Any], Any] | None:
    """Return the children of a node and its context; None for a leaf."""
    if kind is dict:
        return list(tree.values()), list(tree)
    if kind is tuple or kind is list or _is_namedtuple(kind):
        return list(tree), None
    if not is_container(kind):
        return None
    children, context = NODES[kind].flatten_fn(tree)
    return list(children), context


def _is_namedtuple(kind: Any) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def _unflatten_traced(node: _Node, leaves: Iterator[Any]) -> Tree:
    if node is _LEAF:
        return next(leaves)
    if node is _NONE:
        return None
    kind, context, below = node
    parts = [next(leaves) if child is _LEAF else _unflatten_traced(child, leaves) for child in below]
    if kind is dict:
        return dict(zip(context, parts, strict=True))
    if kind is tuple or kind is list:
        return kind(parts)
    if _is_namedtuple(kind):
        return kind(*parts)
    return NODES[kind].unflatten_fn(parts, context)


def _descend_traced(node: _Node, tree: Tree, found: list[Any]) -> None:
    """Append the subtrees of `tree` at the leaves of a structure."""
    if node is _LEAF:
        found.append(tree)
        return
    kind, context, below = node
    parts = _matching_children(kind, context, tree)
    if parts is None or len(parts) != len(below):
        raise ValueError(f"wanted {kind}, got {type(tree)}")
    for child, part in zip(below, parts, strict=True):
        if child is _LEAF:
            found.append(part)
        else:
            _descend_traced(child, part, found)


def _matching_children(kind: Any, context: Any, tree: Tree) -> list[Any] | None:
    """Return the children of a node in the order of a structure's; None if they are of other keys or kinds."""
    if kind is None:
        return [] if tree is None else None
    if kind in _DICTS and type(tree) in _DICTS:
        keys = context[1] if kind is defaultdict else context
        same = list(tree) == keys or set(tree) == set(keys)  # sets take long to trace
        return [tree[key] for key in keys] if same else None
    if type(tree) is not kind:
        return None
    found = _children_traced(kind, tree)
    return found[0] if found is not None and (found[1] == context) else None


def _size_traced(node: _Node) -> int:
    return 1 if node is _LEAF else sum(map(_size_traced, node[2]))


def accessors(tree: Tree) -> list[tuple[Any, ...]]:
    """List the path to each leaf as a tuple of keys, indices and field names."""
    below = children(tree)
    if below is None:
        return [()]
    return [(name, *path) for name, child in below.items() for path in accessors(child)]


def children(tree: Tree) -> dict[Any, Tree] | None:
    """Return the direct children of a node by name; None for a leaf.

    >>> children({"a": 1, "b": [2, 3]})
    {'a': 1, 'b': [2, 3]}
    """
    if len(NODES) != len(SEEN):
        synchronize()
    if optree.tree_is_leaf(tree, namespace=NAMESPACE):
        return None
    if tree is None:
        return {}
    level = optree.tree_flatten_one_level(tree, namespace=NAMESPACE)
    if SEEN.get(type(tree)):
        return name_children(tree, level.children)
    names = optree.structseq_fields(tree) if optree.is_structseq(tree) else getattr(tree, "_fields", level.entries)
    return dict(zip(names, level.children, strict=True))
