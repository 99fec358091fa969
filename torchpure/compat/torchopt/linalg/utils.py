"""Linear operators on trees."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure.compat.torchopt import pytree


def cat_shapes(tree: Any) -> tuple[int, ...]:
    """Return the shapes of all leaves, one after another."""
    return tuple(size for leaf in pytree.tree_leaves(tree) for size in leaf.shape)


def normalize_matvec(matvec: Any) -> Callable[[Any], Any]:
    """Return a function of trees: the argument itself, or the product with its matrices, one for each leaf.

    Raises:
        TypeError: a leaf is not a square matrix.
    """
    if callable(matvec):
        return matvec
    matrices, structure = pytree.tree_flatten(matvec)
    for matrix in matrices:
        if not isinstance(matrix, Tensor) or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise TypeError(
                f"Linear operator must be a square matrix, but has shape: {getattr(matrix, 'shape', type(matrix))}"
            )

    def product(x: Any) -> Any:
        vectors = pytree.tree_leaves(x)
        if len(vectors) != len(matrices):
            raise ValueError(
                f"`x` must have the same number of leaves as `matvec`, but has {len(vectors)} leaves and `matvec` has "
                f"{len(matrices)} leaves"
            )
        return structure.unflatten(map(torch.matmul, matrices, vectors))

    return product
