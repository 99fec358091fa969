"""Masks and labels of leaves: a bool, a tree of bools, a function of the parameters, or globs over paths."""

import fnmatch
import re
from collections.abc import Callable
from typing import Any

from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Params, Tree
from torchpure.errors import StructureError

Mask = Any  # bool | Tree of bools | Callable[[Params], Tree] | str | list[str]
LabelFn = Callable[[Params], list[Any]]  # one label, or one bool, for each leaf


def mask_fn(caller: str, mask: Mask) -> LabelFn:
    """Return a function that lists, for each leaf of the parameters, whether the mask selects it.

    In a tree of bools, one bool may stand for a whole subtree of the parameters. A string such as
    `"encoder.*.bias"`, or a list of strings, selects the leaves whose dotted path matches; `*` matches dots too.
    """
    globs = [mask] if isinstance(mask, str) else mask
    if isinstance(globs, list) and globs and all(isinstance(glob, str) for glob in globs):
        patterns = [re.compile(fnmatch.translate(glob)) for glob in globs]
        return lambda params: [any(p.match(path) is not None for p in patterns) for path in leaf_paths(params)]
    return label_fn(caller, mask)


def label_fn(caller: str, labels: Any) -> LabelFn:
    """Return a function that lists the label of each leaf of the parameters.

    `labels` is a tree of labels, or a function from the parameters to one. A label may stand for a whole subtree.
    """

    def label_leaves(params: Params) -> list[Any]:
        label_tree = labels(params) if callable(labels) else labels
        marks, structure = tree.flatten(label_tree)
        parts = tree.align(structure, label_tree, params, caller)
        return [mark for mark, part in zip(marks, parts, strict=True) for _ in tree.leaves(part)]

    return label_leaves


def glob_label_fn(caller: str, globs: list[str]) -> LabelFn:
    """Return a function that labels each leaf with the first glob that matches its dotted path.

    That function raises StructureError for a leaf that no glob matches.
    """
    patterns = [(glob, re.compile(fnmatch.translate(glob))) for glob in globs]

    def label(path: str) -> str:
        for glob, pattern in patterns:
            if pattern.match(path) is not None:
                return glob
        raise StructureError(f"{caller}: no pattern of {globs} matches the parameter `{path}`: add '*' as the last one")

    return lambda params: [label(path) for path in leaf_paths(params)]


def mask_tree(flags: list[bool], base: Params, other: Tree, caller: str) -> Tree:
    """Replace the parts of `other` with None where the leaf of `base` is not flagged."""
    _, structure = tree.flatten(base)
    parts = tree.align(structure, base, other, caller)
    return tree.unflatten(structure, [part if flag else None for part, flag in zip(parts, flags, strict=True)])


def merge_masked(flags: list[bool], base: Params, yes: Tree, no: Tree, caller: str) -> Tree:
    """Take the parts of `yes` at the flagged leaves of `base`, and those of `no` at the others."""
    _, structure = tree.flatten(base)
    rows = zip(flags, tree.align(structure, base, yes, caller), tree.align(structure, base, no, caller), strict=True)
    return tree.unflatten(structure, [a if flag else b for flag, a, b in rows])


def leaf_paths(params: Params) -> list[str]:
    """List the dotted path of each leaf; torch.compile can trace it."""
    return _walk_paths(params, "") if is_dynamo_compiling() else tree.paths(params)


def _walk_paths(node: Any, prefix: str) -> list[str]:
    # tree.paths calls optree, which torch.compile cannot trace
    if node is None:
        return []
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, tuple) and hasattr(node, "_fields"):
        items = list(zip(node._fields, node, strict=True))
    elif isinstance(node, list | tuple):
        items = list(enumerate(node))
    else:
        return [prefix or "."]
    return [path for name, child in items for path in _walk_paths(child, f"{prefix}.{name}" if prefix else str(name))]
