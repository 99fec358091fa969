"""optree's functions, and arithmetic on trees, by torchopt's names."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import optree as _optree
import torch
from optree import *
from torch import Tensor

from .distributed import refused
from .typing import Scalar

__all__ = [
    *_optree.__all__,
    "tree_add",
    "tree_add_scalar_mul",
    "tree_as_rref",
    "tree_flatten_as_tuple",
    "tree_matmul",
    "tree_mul",
    "tree_neg",
    "tree_pos",
    "tree_scalar_mul",
    "tree_sub",
    "tree_sub_scalar_mul",
    "tree_to_here",
    "tree_truediv",
    "tree_vdot_real",
    "tree_wait",
]

# the trees of this package are Any: optree's own annotations refuse tuples of dicts
tree_map: Any = _optree.tree_map
tree_map_: Any = _optree.tree_map_
tree_leaves: Any = _optree.tree_leaves
tree_flatten: Any = _optree.tree_flatten
tree_broadcast_prefix: Any = _optree.tree_broadcast_prefix
tree_as_rref = refused("pytree.tree_as_rref")
tree_to_here = refused("pytree.tree_to_here")
tree_local_value = refused("pytree.tree_local_value")


def tree_flatten_as_tuple(
    tree: Any, is_leaf: Callable[[Any], bool] | None = None, *, none_is_leaf: bool = False, namespace: str = ""
) -> tuple[tuple[Any, ...], Any]:
    """Flatten to a tuple of leaves and the structure."""
    leaves, structure = tree_flatten(tree, is_leaf, none_is_leaf=none_is_leaf, namespace=namespace)
    return tuple(leaves), structure


def acc_add(*args: Any) -> Any:
    """Add all arguments."""
    return functools.reduce(operator.add, args)


def acc_mul(*args: Any) -> Any:
    """Multiply all arguments."""
    return functools.reduce(operator.mul, args)


def acc_matmul(*args: Any) -> Any:
    """Multiply all arguments as matrices, from left to right."""
    return functools.reduce(operator.matmul, args)


def tree_pos(tree: Any) -> Any:
    """Apply `+` to each leaf."""
    return _optree.tree_map(operator.pos, tree)


def tree_neg(tree: Any) -> Any:
    """Negate each leaf."""
    return _optree.tree_map(operator.neg, tree)


def tree_add(*trees: Any) -> Any:
    """Add trees leaf by leaf.

    >>> tree_add({"a": 1.0}, {"a": 2.0}, {"a": 3.0})
    {'a': 6.0}
    """
    return _optree.tree_map(acc_add, *trees)


def tree_add_scalar_mul(tree_x: Any, tree_y: Any, alpha: Scalar | None = None) -> Any:
    """Compute x + alpha y leaf by leaf."""
    factor = 1 if alpha is None else alpha
    return _optree.tree_map(lambda x, y: x.add(y, alpha=factor), tree_x, tree_y)


def tree_sub(minuend_tree: Any, subtrahend_tree: Any) -> Any:
    """Subtract leaf by leaf."""
    return _optree.tree_map(operator.sub, minuend_tree, subtrahend_tree)


def tree_sub_scalar_mul(tree_x: Any, tree_y: Any, alpha: Scalar | None = None) -> Any:
    """Compute x − alpha y leaf by leaf."""
    factor = 1 if alpha is None else alpha
    return _optree.tree_map(lambda x, y: x.sub(y, alpha=factor), tree_x, tree_y)


def tree_mul(*trees: Any) -> Any:
    """Multiply trees leaf by leaf."""
    return _optree.tree_map(acc_mul, *trees)


def tree_matmul(*trees: Any) -> Any:
    """Multiply the leaves as matrices."""
    return _optree.tree_map(acc_matmul, *trees)


def tree_scalar_mul(scalar: Scalar, multiplicand_tree: Any) -> Any:
    """Multiply each leaf by a number."""
    return _optree.tree_map(lambda x: scalar * x, multiplicand_tree)


def tree_truediv(dividend_tree: Any, divisor_tree: Any) -> Any:
    """Divide leaf by leaf."""
    return _optree.tree_map(operator.truediv, dividend_tree, divisor_tree)


def _vdot_real(x: Tensor, y: Tensor) -> float:
    x, y = x.reshape(-1), y.reshape(-1)
    real = torch.dot(x.real, y.real).item()
    return real + torch.dot(x.imag, y.imag).item() if x.is_complex() and y.is_complex() else real


def tree_vdot_real(tree_x: Any, tree_y: Any) -> float:
    """Return the real part of the inner product, a Python number.

    >>> tree_vdot_real((torch.tensor([1.0, 2.0]),), (torch.tensor([3.0, 4.0]),))
    11.0
    """
    leaves, structure = tree_flatten(tree_x)
    others: Any = structure.flatten_up_to(tree_y)
    return sum(map(_vdot_real, leaves, others))


def tree_wait(future_tree: Any) -> Any:
    """Wait for all futures of a tree, and return their values."""
    futures, structure = _optree.tree_flatten(future_tree)
    return _optree.tree_unflatten(structure, torch.futures.wait_all(futures))
