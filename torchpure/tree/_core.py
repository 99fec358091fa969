"""Trees: nests of dicts, lists, tuples, NamedTuples and registered dataclasses, with any leaves."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchpure._types import Tree
from torchpure.errors import StructureError

from ._backend import Structure, accessors, children, flatten, flatten_up_to, size, unflatten

LEAF: Any = object()  # stands for a leaf that is not at hand


def leaves(tree: Tree) -> list[Any]:
    """List the leaves in insertion order; None holds no leaf.

    >>> leaves({"b": 1, "a": [2, None, "c"]})
    [1, 2, 'c']
    """
    return flatten(tree)[0]


def structure(tree: Tree) -> Structure:
    """Return what is left of a tree without its leaves: hashable, comparable."""
    return flatten(tree)[1]


def paths(tree: Tree) -> list[str]:
    """Name the way to each leaf with dots.

    >>> paths({"layer": {"w": 1, "b": 2}, "rates": (3, 4)})
    ['layer.w', 'layer.b', 'rates.0', 'rates.1']
    """
    return [join(accessor) for accessor in accessors(tree)]


def join(names: tuple[Any, ...]) -> str:
    """Write a way through a tree as one dotted path; the root is `.`."""
    return ".".join([str(name) for name in names]) or "."


def map(fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `fn` to each leaf of `tree`, and to what the other trees hold at the same place.

    The first tree gives the structure. Dicts are matched by key, whatever their order.

    Raises:
        StructureError: another tree differs from the first; the first path that does is named.

    >>> map(lambda a, b: a + b, {"x": 1, "y": None}, {"x": 10, "y": None})
    {'x': 11, 'y': None}
    """
    first, shape = flatten(tree)
    if not rest:
        return unflatten(shape, [fn(leaf) for leaf in first])
    columns = [align(shape, tree, other, "tree.map") for other in rest]
    return unflatten(shape, [fn(*row) for row in zip(first, *columns, strict=True)])


def align(shape: Structure, tree: Tree, other: Tree, who: str) -> list[Any]:
    """List what `other` holds where `tree`, of structure `shape`, has its leaves.

    Raises:
        StructureError: `other` has not the nodes of `tree`.
    """
    try:
        return flatten_up_to(shape, other)
    except ValueError as error:
        difference = _first_difference(tree, other, ())
        raise StructureError(f"{who}: trees differ {difference or f': {error}'}") from None


def ordered(shape: Structure, other: Tree, who: str) -> list[Any]:
    """List the leaves of `other` in the order of a structure, which must be its own but for the order of keys.

    Raises:
        StructureError: it is not; the first path where they differ is named.

    >>> ordered(structure({"x": 0, "y": 0}), {"y": 2, "x": 1}, "ordered")
    [1, 2]
    """
    leaves, got = flatten(other)
    if got == shape:
        return leaves
    wanted = unflatten(shape, [LEAF] * size(shape))
    check_same(wanted, other, who=who)
    return align(shape, wanted, other, who)


def check_same(tree: Tree, other: Tree, *, who: str = "tree.check_same") -> None:
    """Check that two trees have one structure, leaves aside.

    Raises:
        StructureError: they differ; the first path that does is named, with what was wanted and what came.

    >>> check_same({"a": {"w": 1}}, {"a": {"v": 1}})
    Traceback (most recent call last):
    torchpure.errors.StructureError: tree.check_same: trees differ at `a`: wanted keys 'w', got 'v' (missing 'w'; ...
    """
    difference = _first_difference(tree, other, (), leaf_depth=True)
    if difference:
        raise StructureError(f"{who}: trees differ {difference}")


def describe(value: Any) -> str:
    """Say in a few words what a value is: kind, shape and dtype."""
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"a{'n' * kind.startswith('int')} {kind} tensor of shape {tuple(value.shape)}"
    if value is None or value is LEAF:
        return "None" if value is None else "a leaf"
    inner = children(value)
    if inner is None:
        return f"{type(value).__name__} {value!r:.40}"
    return f"{type(value).__name__} of {len(inner)}"


def _first_difference(tree: Tree, other: Tree, way: tuple[Any, ...], leaf_depth: bool = False) -> str | None:
    """Describe the first difference: down to the leaves of `tree`, or of both when `leaf_depth`."""
    wanted, got = children(tree), children(other)
    if wanted is None and (got is None or not leaf_depth):
        return None
    if (wanted is None) != (got is None) or (tree is None) != (other is None) or _kind(tree) is not _kind(other):
        return f"at `{join(way)}`: wanted {describe(tree)}, got {describe(other)}"
    assert wanted is not None and got is not None
    if wanted.keys() != got.keys():
        return f"at `{join(way)}`: {_key_difference(list(wanted), list(got))}"
    below = (_first_difference(wanted[name], got[name], (*way, name), leaf_depth) for name in wanted)
    return next((difference for difference in below if difference), None)


def _kind(tree: Tree) -> type:
    return dict if isinstance(tree, dict) else type(tree)


def _key_difference(wanted: list[Any], got: list[Any]) -> str:
    if all(isinstance(name, int) for name in (*wanted, *got)):
        return f"wanted {len(wanted)} items, got {len(got)}"
    parts = [f"wanted keys {_names(wanted)}, got {_names(got)}"]
    missing = [name for name in wanted if name not in got]
    unexpected = [name for name in got if name not in wanted]
    notes = [f"missing {_names(missing)}"] * bool(missing) + [f"unexpected {_names(unexpected)}"] * bool(unexpected)
    return f"{parts[0]} ({'; '.join(notes)})"


def _names(names: list[Any]) -> str:
    shown = ", ".join(repr(name) for name in names[:6]) or "none"
    return shown + (", …" if len(names) > 6 else "")
