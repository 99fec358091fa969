"""Operators made from a linear function of trees."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure.compat.torchopt import pytree
from torchpure.transforms import jacfwd, vjp

MatVec = Callable[[Any], Any]


def make_rmatvec(matvec: MatVec, example_x: Any) -> MatVec:
    """Return the transpose of a linear function."""
    transposed = vjp(matvec, example_x)[1]
    return lambda y: transposed(y)[0]


def make_normal_matvec(matvec: MatVec) -> MatVec:
    """Return y ↦ Aᵀ A y."""

    def normal(y: Any) -> Any:
        image, transposed, *_ = vjp(matvec, y)
        return transposed(image)[0]

    return normal


def make_ridge_matvec(matvec: MatVec, ridge: float = 0.0) -> MatVec:
    """Return y ↦ A y + ridge y."""
    return lambda y: pytree.tree_add_scalar_mul(matvec(y), y, alpha=ridge)


def materialize_matvec(matvec: MatVec, x: Any) -> tuple[Any, MatVec, Callable[[Any], Any], Callable[[Any], Any]]:
    """Return (the diagonal blocks of the matrix, the function of raveled trees, ravel, unravel)."""
    leaves, structure = pytree.tree_flatten(x)

    def ravel(tree: Any) -> Any:
        return pytree.tree_map(lambda leaf: leaf.reshape(-1), tree)

    def unravel(tree: Any) -> Any:
        parts = zip(structure.flatten_up_to(tree), leaves, strict=True)
        return structure.unflatten([part.reshape(leaf.shape) for part, leaf in parts])

    def raveled(tree: Any) -> Any:
        return ravel(matvec(unravel(tree)))

    blocks = pytree.tree_leaves(jacfwd(raveled)(ravel(x)))
    diagonal = structure.unflatten([blocks[i + i * len(leaves)] for i in range(len(leaves))])
    return diagonal, raveled, ravel, unravel


def dense_matrix(matvec: MatVec, x: Any) -> tuple[Tensor, Callable[[Any], Tensor], Callable[[Tensor], Any]]:
    """Return (the whole matrix, the vector of a tree, the tree of a vector)."""
    leaves, structure = pytree.tree_flatten(x)
    sizes = [leaf.numel() for leaf in leaves]

    def ravel(tree: Any) -> Tensor:
        return torch.cat([leaf.reshape(-1) for leaf in structure.flatten_up_to(tree)])

    def unravel(vector: Tensor) -> Any:
        parts = zip(vector.split(sizes), leaves, strict=True)
        return structure.unflatten([part.reshape(leaf.shape) for part, leaf in parts])

    return jacfwd(lambda vector: ravel(matvec(unravel(vector))))(ravel(x)), ravel, unravel
