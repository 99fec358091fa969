"""Split parameters in two trees, such as trained and frozen ones, and merge them again."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import StructureError

from ._functional import Functional

Where = str | type[nn.Module] | Callable[[str, Any], bool] | Sequence[Any]


def partition(params: Tree, where: Where, *, net: Functional | None = None) -> tuple[Tree, Tree]:
    """Split a tree into two trees of its structure, (chosen, rest); each has None where the other has the leaf.

    Gradients and optimizers skip None, so `grad` and `optimizer.init` of the chosen half ignore the rest.
    `where` is a glob of dotted paths ("layers.*.bias"; a star also matches dots), a predicate `(path, leaf) -> bool`,
    or a module class, which chooses the parameters that its modules own directly; a class needs the `net`. A list
    chooses what any of its items chooses.

    Law: `merge(*partition(p, where)) == p`, with the same tensors.

    Raises:
        StructureError: a glob or a class chooses nothing.
        TypeError: `where` is none of these, or it is a class and `net` is not given.

    >>> import torch
    >>> chosen, rest = partition({"a.bias": torch.zeros(1), "a.weight": torch.ones(1)}, "*.bias")
    >>> chosen
    {'a.bias': tensor([0.]), 'a.weight': None}
    """
    leaves, structure = tree.flatten(params)
    paths = tree.paths(params)
    predicates = [_predicate(one, paths, net) for one in (where if isinstance(where, list | tuple) else [where])]
    picks = [any(predicate(path, leaf) for predicate in predicates) for path, leaf in zip(paths, leaves, strict=True)]
    return (
        tree.unflatten(structure, [leaf if pick else None for leaf, pick in zip(leaves, picks, strict=True)]),
        tree.unflatten(structure, [None if pick else leaf for leaf, pick in zip(leaves, picks, strict=True)]),
    )


def merge(*parts: Tree) -> Tree:
    """Merge the parts of a partition: each place takes the one leaf that is not None, or None if there is none.

    Raises:
        StructureError: the parts differ in structure, or two parts have a leaf at the same place.

    >>> merge({"a": 1, "b": None}, {"a": None, "b": 2})
    {'a': 1, 'b': 2}
    """
    if not parts:
        raise StructureError("merge: wanted at least one part")
    columns, structures = zip(*map(tree.flatten_holes, parts), strict=True)
    templates = [tree.unflatten(one, ["leaf"] * len(column)) for one, column in zip(structures, columns, strict=True)]
    for other in templates[1:]:
        tree.check_same(templates[0], other, caller="merge")
    aligned = [tree.align(structures[0], templates[0], part, "merge") for part in parts]
    merged = []
    for number, row in enumerate(zip(*aligned, strict=True)):
        found = [leaf for leaf in row if leaf is not None]
        if len(found) > 1:
            raise StructureError(f"merge: {len(found)} parts have a leaf at `{tree.paths(templates[0])[number]}`")
        merged.append(found[0] if found else None)
    return tree.unflatten(structures[0], merged)


def _predicate(where: Any, paths: list[str], net: Functional | None) -> Callable[[str, Any], bool]:
    if isinstance(where, str):
        if not any(fnmatchcase(path, where) for path in paths):
            raise StructureError(f"partition: `{where}` matches no path: the paths are {_some(paths)}")
        return lambda path, _: fnmatchcase(path, where)
    if isinstance(where, type) and issubclass(where, nn.Module):
        owned = _owned_paths(where, net)
        if not owned.intersection(paths):
            raise StructureError(f"partition: no parameter belongs to a {where.__name__}: the paths are {_some(paths)}")
        return lambda path, _: path in owned
    if callable(where):
        return where
    raise TypeError(f"partition: wanted a glob, a predicate of (path, leaf) or a class of modules, got {where!r:.60}")


def _owned_paths(kind: type[nn.Module], net: Functional | None) -> set[str]:
    """List the paths of the parameters that modules of this class own directly."""
    if net is None:
        raise TypeError(
            f"partition: to choose by the class {kind.__name__}, give the net: partition(params, where, net=net)"
        )
    module = net.to_module()
    return {
        f"{path}.{name}".lstrip(".")
        for path, sub in module.named_modules(remove_duplicate=False)
        if isinstance(sub, kind)
        for name, _ in sub.named_parameters(recurse=False)
    }


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:6]) + (f" and {len(paths) - 6} more" if len(paths) > 6 else "")
