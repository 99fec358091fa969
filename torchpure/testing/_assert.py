"""Assertions on trees."""

from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree


def assert_trees_close(actual: Tree, expected: Tree, *, rtol: float = 1e-12, atol: float = 0.0) -> None:
    """Assert that two trees have the same structure, dtypes and shapes, and close values.

    Two entries are close if they differ by at most atol + rtol |expected|. Leaves that are not tensors must be equal.

    Raises:
        AssertionError: they differ; the message names the path of the first leaf that differs.
        StructureError: their structures differ.

    >>> assert_trees_close({"w": torch.ones(2)}, {"w": torch.zeros(2)})
    Traceback (most recent call last):
    AssertionError: at `w`: ...
    """
    tree.check_same(expected, actual, who="assert_trees_close")
    pairs = zip(
        tree.leaves(actual), tree.align(tree.structure(actual), actual, expected, "assert_trees_close"), strict=True
    )
    for path, (got, wanted) in zip(tree.paths(actual), pairs, strict=True):
        _assert_leaf(path, got, wanted, rtol, atol)


def _assert_leaf(path: str, got: Any, wanted: Any, rtol: float, atol: float) -> None:
    if not isinstance(got, Tensor) or not isinstance(wanted, Tensor):
        assert got == wanted, f"at `{path}`: wanted {wanted!r}, got {got!r}"
        return
    torch.testing.assert_close(
        got.detach(), wanted.detach(), rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"at `{path}`: {text}"
    )
