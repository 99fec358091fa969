"""Assertions on trees.

Bits are asked for where nothing is rounded anew: of draws, keys, copies, the order of things, checkpoints, and one
computation run twice. Two routes to one number (a batched product and a single one, a bias that is added by the
product, a vector function and its scalar twin, a sum in another order) round differently on each processor:
`assert_trees_close_to_rounding` is for those.
"""

from collections.abc import Callable, Collection, Sequence
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
    _assert_leaves(actual, expected, "assert_trees_close", lambda _: (rtol, atol))


# n terms that are summed in another order differ by less than n units in the last place of the largest partial sum, and
# a vector function by a few. What is compared here sums some dozens of terms at most.
_UNITS = 64


def assert_trees_close_to_rounding(actual: Tree, expected: Tree) -> None:
    """Assert that two trees are one but for rounding, as two routes to the same numbers are.

    Entries may differ by 64 units in the last place of the largest entry of their leaf; integers and flags must be
    equal.

    Raises:
        AssertionError: they differ by more; the path of the first leaf that does is named.
        StructureError: their structures differ.

    >>> assert_trees_close_to_rounding(torch.tensor(0.1 + 0.2), torch.tensor(0.3))
    >>> assert_trees_close_to_rounding(torch.tensor(0.3001), torch.tensor(0.3))
    Traceback (most recent call last):
    AssertionError: at `.`: ...
    """
    _assert_leaves(actual, expected, "assert_trees_close_to_rounding", lambda leaf: (0.0, _rounding(leaf)))


def _rounding(leaf: Any) -> float:
    if not isinstance(leaf, Tensor) or not leaf.numel() or not (leaf.is_floating_point() or leaf.is_complex()):
        return 0.0
    sizes = leaf.detach().abs()
    return _UNITS * torch.finfo(leaf.dtype).eps * float(sizes.nan_to_num(0.0, 0.0, 0.0).max())


def _assert_leaves(actual: Tree, expected: Tree, caller: str, slack: Callable[[Any], tuple[float, float]]) -> None:
    tree.check_same(expected, actual, caller=caller)
    pairs = zip(tree.leaves(actual), tree.align(tree.structure(actual), actual, expected, caller), strict=True)
    for path, (got, wanted) in zip(tree.paths(actual), pairs, strict=True):
        _assert_leaf(path, got, wanted, *slack(wanted))


def check_skip(caller: str, skip: Sequence[str], laws: Collection[str]) -> None:
    """Check that the names to skip are names of laws.

    Raises:
        ValueError: one is not.
    """
    unknown = [name for name in skip if name not in laws]
    if unknown:
        raise ValueError(f"{caller}: skip names no law {', '.join(unknown)}: there are {', '.join(laws)}")


def _assert_leaf(path: str, got: Any, wanted: Any, rtol: float, atol: float) -> None:
    if not isinstance(got, Tensor) or not isinstance(wanted, Tensor):
        assert got == wanted, f"at `{path}`: wanted {wanted!r}, got {got!r}"
        return
    torch.testing.assert_close(
        got.detach(), wanted.detach(), rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"at `{path}`: {text}"
    )


def assert_tensors_close(actual: Tree, expected: Tree, what: str) -> None:
    """Assert that two trees hold close tensors, by what their dtypes can hold; `what` begins the message.

    Raises:
        AssertionError: two tensors differ, or one tree has more of them.
    """
    got, wanted = tensors(actual), tensors(expected)
    assert len(got) == len(wanted), f"{what}: {len(got)} tensors, wanted {len(wanted)}"
    for a, b in zip(got, wanted, strict=True):
        try:
            assert_trees_close(a, b, rtol=rtol_of(a.dtype), atol=rtol_of(a.dtype))
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error


def rtol_of(dtype: torch.dtype) -> float:
    """Return a tolerance that tells rounding from mistakes."""
    real = dtype if dtype.is_floating_point else dtype.to_real() if dtype.is_complex else torch.float64
    return 2e-10 if real == torch.float64 else 100 * torch.finfo(real).eps


def tensors(value: Tree) -> list[Tensor]:
    """List the leaves that are tensors."""
    return [leaf for leaf in tree.leaves(value) if isinstance(leaf, Tensor)]


def weighted_sum(value: Tree) -> Tensor:
    """Reduce an output to one real number in which each entry has its own weight."""
    total = torch.zeros((), dtype=torch.float64)
    for leaf in tensors(value):
        if leaf.is_floating_point() or leaf.is_complex():
            flat = (torch.view_as_real(leaf) if leaf.is_complex() else leaf).reshape(-1)
            total = total + (flat * torch.linspace(0.5, 1.5, flat.numel(), dtype=flat.dtype)).sum()
    return total
