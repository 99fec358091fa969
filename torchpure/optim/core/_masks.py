"""Which leaves: a bool, a tree of bools, a function of the parameters, or globs over paths."""

import fnmatch
import re
from collections.abc import Callable
from typing import Any

from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Params, Tree
from torchpure.errors import StructureError

Mask = Any  # bool | Tree of bools | Callable[[Params], Tree] | str | list[str]
Choice = Callable[[Params], list[Any]]  # one label, or one bool, for each leaf


def choice(who: str, mask: Mask) -> Choice:
    """Read a mask once; the result lists, for each leaf of the parameters, whether it is meant.

    A tree of bools may stop early: its bool is for all that the parameters hold there. A string such as
    `"encoder.*.bias"`, or a list of them, means the leaves whose dotted path it matches; `*` matches dots too.
    """
    globs = [mask] if isinstance(mask, str) else mask
    if isinstance(globs, list) and globs and all(isinstance(glob, str) for glob in globs):
        patterns = [re.compile(fnmatch.translate(glob)) for glob in globs]
        return lambda params: [any(p.match(path) is not None for p in patterns) for path in leaf_paths(params)]
    return labelling(who, mask)


def labelling(who: str, labels: Any) -> Choice:
    """Read a tree of labels, or a function of the parameters that gives one; a label may stand for a whole subtree."""

    def chosen(params: Params) -> list[Any]:
        whole = labels(params) if callable(labels) else labels
        marks, structure = tree.flatten(whole)
        parts = tree.align(structure, whole, params, who)
        return [mark for mark, part in zip(marks, parts, strict=True) for _ in tree.leaves(part)]

    return chosen


def first_match(who: str, globs: list[str]) -> Choice:
    """Label each leaf with the first glob that matches its dotted path.

    The result raises StructureError for a leaf that none matches.
    """
    patterns = [(glob, re.compile(fnmatch.translate(glob))) for glob in globs]

    def label(path: str) -> str:
        for glob, pattern in patterns:
            if pattern.match(path) is not None:
                return glob
        raise StructureError(f"{who}: no pattern of {globs} matches the parameter `{path}`: add '*' as the last one")

    return lambda params: [label(path) for path in leaf_paths(params)]


def keep(flags: list[bool], base: Params, other: Tree, who: str) -> Tree:
    """Replace with None what `other` holds at the leaves of `base` that are not flagged."""
    _, structure = tree.flatten(base)
    held = tree.align(structure, base, other, who)
    return tree.unflatten(structure, [leaf if flag else None for leaf, flag in zip(held, flags, strict=True)])


def merge(flags: list[bool], base: Params, yes: Tree, no: Tree, who: str) -> Tree:
    """Take what `yes` holds at the flagged leaves of `base`, and what `no` holds at the others."""
    _, structure = tree.flatten(base)
    rows = zip(flags, tree.align(structure, base, yes, who), tree.align(structure, base, no, who), strict=True)
    return tree.unflatten(structure, [a if flag else b for flag, a, b in rows])


def leaf_paths(params: Params) -> list[str]:
    """Name the way to each leaf with dots, also while a compiler traces."""
    return _walk(params, "") if is_dynamo_compiling() else tree.paths(params)


def _walk(node: Any, way: str) -> list[str]:  # tree.paths asks optree, which torch.compile cannot trace
    if node is None:
        return []
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, tuple) and hasattr(node, "_fields"):
        items = list(zip(node._fields, node, strict=True))
    elif isinstance(node, list | tuple):
        items = list(enumerate(node))
    else:
        return [way or "."]
    return [path for name, child in items for path in _walk(child, f"{way}.{name}" if way else str(name))]
