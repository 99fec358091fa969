"""The structure of a tree as JSON: which containers, with which keys.

A node is None for None, "leaf" for a leaf, or an object with the kind of the container, its class where that is not a
plain one, its keys and its children. Classes are named so that a restored tree can be compared; they are never
imported.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Any

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import InputError

MAX_DEPTH = 64
LEAF = "leaf"
Node = Any  # None, "leaf", or a dict as above
Keys = tuple[Any, ...]
_DICTS = (dict, OrderedDict, defaultdict)
_LARGEST = 1 << 63


def dotted(keys: Keys) -> str:
    """Join the keys of a path as `tree.paths` does; the root is `.`."""
    return ".".join([str(key) for key in keys]) or "."


def take_apart(value: Tree, caller: str) -> tuple[Node, list[tuple[Keys, Any]]]:
    """Split a tree into its structure and its leaves with their paths.

    Raises:
        InputError: a key of a dict is no string or integer, or the tree is too deep.
    """
    leaves: list[tuple[Keys, Any]] = []

    def visit(value: Tree, path: Keys) -> Node:
        below = tree.children(value)
        if below is None:
            leaves.append((path, value))
            return LEAF
        if value is None:
            return None
        if len(path) >= MAX_DEPTH:
            raise InputError(f"{caller}: the tree is deeper than {MAX_DEPTH} containers at `{dotted(path)}`")
        kind = _kind(value)
        node: dict[str, Any] = {"kind": kind}
        if kind not in ("list", "tuple"):
            node["keys"] = [_checked_key(key, path, caller) for key in below]
        if kind in ("namedtuple", "object"):
            node["class"] = type(value).__qualname__
        node["children"] = [visit(child, (*path, key)) for key, child in below.items()]
        return node

    return visit(value, ()), leaves


def _kind(value: Tree) -> str:
    kind = type(value)
    if kind in _DICTS:
        return "dict"
    if kind is list or kind is tuple:
        return kind.__name__
    return "namedtuple" if isinstance(value, tuple) and hasattr(kind, "_fields") else "object"


def _checked_key(key: Any, path: Keys, caller: str) -> str | int:
    if type(key) is str or (type(key) is int and abs(key) < _LARGEST):
        return key
    raise InputError(f"{caller}: key {key!r:.60} at `{dotted(path)}`: wanted a string or an integer of 64 bits")


def check_node(node: Any, depth: int = 0) -> None:
    """Check the structure that a file holds.

    Raises:
        ValueError: it is none.
    """
    if node is None or node == LEAF:
        return
    if type(node) is not dict or depth >= MAX_DEPTH:
        raise ValueError(f"wanted the structure of a tree, got {node!r:.40}")
    kind, children = node.get("kind"), node.get("children")
    if kind not in ("dict", "list", "tuple", "namedtuple", "object") or type(children) is not list:
        raise ValueError(f"wanted a container, got {node!r:.40}")
    wanted = {"kind", "children"}
    if kind not in ("list", "tuple"):
        wanted.add("keys")
        _check_keys(node.get("keys"), len(children))
    if kind in ("namedtuple", "object"):
        wanted.add("class")
        if type(node.get("class")) is not str:
            raise ValueError(f"wanted the name of a class, got {node.get('class')!r:.40}")
    if node.keys() != wanted:
        raise ValueError(f"wanted the fields {sorted(wanted)}, got {sorted(node)!r:.80}")
    for child in children:
        check_node(child, depth + 1)


def _check_keys(keys: Any, count: int) -> None:
    if type(keys) is not list or len(keys) != count or not all(type(key) in (str, int) for key in keys):
        raise ValueError(f"wanted {count} keys, got {keys!r:.40}")
    if len({*keys}) != count:
        raise ValueError(f"a key stands twice in {keys!r:.40}")


def iterate(node: Node, path: Keys = ()) -> Iterator[tuple[Keys, Node]]:
    """Yield each node of a structure with its path, parents first."""
    yield path, node
    if isinstance(node, dict):
        keys = node.get("keys", range(len(node["children"])))
        for key, child in zip(keys, node["children"], strict=True):
            yield from iterate(child, (*path, key))


def name(node: Node) -> str:
    """Name a node in messages: `dict`, `AdamState`, `None`, `leaf`."""
    if isinstance(node, dict):
        return node.get("class", node["kind"])
    return "None" if node is None else LEAF


def build(node: Node, leaves: Iterator[Any]) -> Tree:
    """Build a tree of plain containers; NamedTuples and registered classes become dicts by field."""
    if node is None:
        return None
    if node == LEAF:
        return next(leaves)
    children = [build(child, leaves) for child in node["children"]]
    match node["kind"]:
        case "list":
            return children
        case "tuple":
            return tuple(children)
    return dict(zip(node["keys"], children, strict=True))
