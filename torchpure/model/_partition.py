"""Splitting parameters into those that are trained and those that are not, and putting them together again."""

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
    """Split a tree in two of the same structure: (chosen, rest), each with None where the other has its leaf.

    Gradients and optimizers pass over None, so that `grad` and `optimizer.init` of the chosen half leave the rest out.
    `where` is a glob of dotted paths ("layers.*.bias"; a star goes across dots), a predicate `(path, leaf) -> bool`, or
    a class of modules, whose own parameters are chosen: for that give the net. Several of them choose what any does.

    Law: `merge(*partition(p, where)) == p`, with the same tensors.

    Raises:
        StructureError: a glob or a class chooses nothing.
        TypeError: `where` is something else, or a class and there is no net.

    >>> import torch
    >>> chosen, rest = partition({"a.bias": torch.zeros(1), "a.weight": torch.ones(1)}, "*.bias")
    >>> chosen
    {'a.bias': tensor([0.]), 'a.weight': None}
    """
    leaves, structure = tree.flatten(params)
    paths = tree.paths(params)
    tests = [_test(one, paths, net) for one in (where if isinstance(where, list | tuple) else [where])]
    picks = [any(test(path, leaf) for test in tests) for path, leaf in zip(paths, leaves, strict=True)]
    return (
        tree.unflatten(structure, [leaf if pick else None for leaf, pick in zip(leaves, picks, strict=True)]),
        tree.unflatten(structure, [None if pick else leaf for leaf, pick in zip(leaves, picks, strict=True)]),
    )


def merge(*parts: Tree) -> Tree:
    """Put the parts of a partition together: at each place the one leaf that is not None; where all are None, None.

    Raises:
        StructureError: the parts differ in structure, or two have a leaf at one place.

    >>> merge({"a": 1, "b": None}, {"a": None, "b": 2})
    {'a': 1, 'b': 2}
    """
    if not parts:
        raise StructureError("merge: wanted at least one part")
    columns, structures = zip(*map(tree.flatten_holes, parts), strict=True)
    whole = [tree.unflatten(one, ["leaf"] * len(column)) for one, column in zip(structures, columns, strict=True)]
    for other in whole[1:]:
        tree.check_same(whole[0], other, who="merge")
    aligned = [tree.align(structures[0], whole[0], part, "merge") for part in parts]
    merged = []
    for number, row in enumerate(zip(*aligned, strict=True)):
        found = [leaf for leaf in row if leaf is not None]
        if len(found) > 1:
            raise StructureError(f"merge: {len(found)} parts have a leaf at `{tree.paths(whole[0])[number]}`")
        merged.append(found[0] if found else None)
    return tree.unflatten(structures[0], merged)


def _test(where: Any, paths: list[str], net: Functional | None) -> Callable[[str, Any], bool]:
    if isinstance(where, str):
        if not any(fnmatchcase(path, where) for path in paths):
            raise StructureError(f"partition: `{where}` matches no path: there are {_some(paths)}")
        return lambda path, _: fnmatchcase(path, where)
    if isinstance(where, type) and issubclass(where, nn.Module):
        own = _owned(where, net)
        if not own.intersection(paths):
            raise StructureError(f"partition: no parameter belongs to a {where.__name__}: there are {_some(paths)}")
        return lambda path, _: path in own
    if callable(where):
        return where
    raise TypeError(f"partition: wanted a glob, a predicate of (path, leaf) or a class of modules, got {where!r:.60}")


def _owned(kind: type[nn.Module], net: Functional | None) -> set[str]:
    """Name the parameters of a net that belong to modules of a class themselves."""
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
