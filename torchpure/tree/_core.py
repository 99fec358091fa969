"""Trees: nests of dicts, lists, tuples, NamedTuples and registered dataclasses, with any leaves."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchpure._types import Tree
from torchpure.errors import StructureError

from ._backend import Structure, accessors, children, flatten, flatten_up_to, size, unflatten
from ._registry import kept

LEAF: Any = object()  # a placeholder for any leaf


def leaves(tree: Tree) -> list[Any]:
    """List the leaves in insertion order; None has no leaves.

    >>> leaves({"b": 1, "a": [2, None, "c"]})
    [1, 2, 'c']
    """
    return flatten(tree)[0]


def structure(tree: Tree) -> Structure:
    """Return the structure of a tree without its leaves; it is hashable and comparable.

    >>> structure({"a": 1}) == structure({"a": 2})
    True
    """
    return flatten(tree)[1]


def paths(tree: Tree) -> list[str]:
    """List the dotted path of each leaf.

    >>> paths({"layer": {"w": 1, "b": 2}, "rates": (3, 4)})
    ['layer.w', 'layer.b', 'rates.0', 'rates.1']
    """
    return [join_path(accessor) for accessor in accessors(tree)]


def join_path(names: tuple[Any, ...]) -> str:
    """Join keys to one dotted path; the root is `.`."""
    return ".".join([str(name) for name in names]) or "."


def map(fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `fn` to each leaf of `tree` and to the subtrees of the other trees at the same path.

    The first tree gives the structure. Dicts are matched by key, in any order.

    Raises:
        StructureError: another tree differs from the first; the message names the first path that differs.

    >>> map(lambda a, b: a + b, {"x": 1, "y": None}, {"x": 10, "y": None})
    {'x': 11, 'y': None}
    """
    first, shape = flatten(tree)
    if not rest:
        return unflatten(shape, [fn(leaf) for leaf in first])
    columns = [align(shape, tree, other, "tree.map") for other in rest]
    return unflatten(shape, [fn(*row) for row in zip(first, *columns, strict=True)])


def align(shape: Structure, tree: Tree, other: Tree, caller: str) -> list[Any]:
    """List the subtrees of `other` at the leaves of `tree`, whose structure is `shape`.

    Raises:
        StructureError: `other` does not have the nodes of `tree`.

    >>> align(structure([1, 2]), [1, 2], [(1, 1), {"a": 2}], "example")
    [(1, 1), {'a': 2}]
    """
    try:
        return flatten_up_to(shape, other)
    except ValueError:  # they differ, or only keys of a registered dict have another order
        difference = _first_difference(tree, other, ())
        if difference is None:
            return _matched(tree, other)
        raise StructureError(f"{caller}: trees differ {difference}") from None


def _matched(tree: Tree, other: Tree) -> list[Any]:
    """List the subtrees of `other` at the leaves of `tree`, by name."""
    wanted, got = children(tree), children(other)
    if wanted is None or got is None:
        return [other]
    return [part for name, child in wanted.items() for part in _matched(child, got[name])]


def ordered(shape: Structure, other: Tree, caller: str) -> list[Any]:
    """List the leaves of `other` in the order of a structure that equals its own up to the order of dict keys.

    Raises:
        StructureError: the structures differ; the message names the first path that differs.

    >>> ordered(structure({"x": 0, "y": 0}), {"y": 2, "x": 1}, "ordered")
    [1, 2]
    """
    leaves, got = flatten(other)
    if got == shape:
        return leaves
    wanted = unflatten(shape, [LEAF] * size(shape))
    check_same(wanted, other, caller=caller)
    return align(shape, wanted, other, caller)


def check_same(tree: Tree, other: Tree, *, caller: str = "tree.check_same") -> None:
    """Check that two trees have the same structure; their leaves may differ.

    Raises:
        StructureError: they differ; the message names the first path that differs, what was wanted and what came.

    >>> check_same({"a": {"w": 1}}, {"a": {"v": 1}})
    Traceback (most recent call last):
    torchpure.errors.StructureError: tree.check_same: trees differ at `a`: wanted keys 'w', got 'v' (missing 'w'; ...
    """
    difference = _first_difference(tree, other, (), leaf_depth=True)
    if difference:
        raise StructureError(f"{caller}: trees differ {difference}")


def describe(value: Any) -> str:
    """Describe a value in a few words: kind, shape and dtype.

    >>> import torch
    >>> describe(torch.ones(2, 3))
    'a float32 tensor of shape (2, 3)'
    """
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"a{'n' * kind.startswith('int')} {kind} tensor of shape {tuple(value.shape)}"
    if value is None or value is LEAF:
        return "None" if value is None else "a leaf"
    inner = children(value)
    if inner is None:
        return f"{type(value).__name__} {value!r:.40}"
    return f"{type(value).__name__} of {len(inner)}"


def _first_difference(tree: Tree, other: Tree, path: tuple[Any, ...], leaf_depth: bool = False) -> str | None:
    """Describe the first difference, down to the leaves of `tree`, or of both trees if `leaf_depth`."""
    wanted, got = children(tree), children(other)
    if wanted is None and (got is None or not leaf_depth):
        return None
    if (wanted is None) != (got is None) or (tree is None) != (other is None) or _kind(tree) is not _kind(other):
        return f"at `{join_path(path)}`: wanted {describe(tree)}, got {describe(other)}"
    assert wanted is not None and got is not None
    if wanted.keys() != got.keys():
        return f"at `{join_path(path)}`: {_key_difference(list(wanted), list(got))}"
    if kept(tree) != kept(other):
        return f"at `{join_path(path)}`: wanted {type(tree).__name__} with {kept(tree)}, got {kept(other)}"
    below = (_first_difference(wanted[name], got[name], (*path, name), leaf_depth) for name in wanted)
    return next((difference for difference in below if difference), None)


def _kind(tree: Tree) -> type:
    return dict if isinstance(tree, dict) else type(tree)


def _key_difference(wanted: list[Any], got: list[Any]) -> str:
    if all(isinstance(name, int) for name in (*wanted, *got)):
        return f"wanted {len(wanted)} items, got {len(got)}"
    parts = [f"wanted keys {_show_names(wanted)}, got {_show_names(got)}"]
    missing = [name for name in wanted if name not in got]
    unexpected = [name for name in got if name not in wanted]
    notes = [f"missing {_show_names(missing)}"] * bool(missing) + [f"unexpected {_show_names(unexpected)}"] * bool(
        unexpected
    )
    return f"{parts[0]} ({'; '.join(notes)})"


def _show_names(names: list[Any]) -> str:
    shown = ", ".join(repr(name) for name in names[:6]) or "none"
    return shown + (", …" if len(names) > 6 else "")
