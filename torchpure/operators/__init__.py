"""Differential operators: Laplacians, divergences, partial derivatives, Taylor mode."""

from ._first_order import advection, curl, divergence, jacobian_diagonal, strain
from ._jet import directional, jet
from ._laplacian import (
    BilaplacianParts,
    HessianDiagonalParts,
    LaplacianParts,
    bilaplacian,
    hessian_diagonal,
    laplacian,
)
from ._partials import partial, partials
from ._randomised import hutchinson_divergence, hutchinson_laplacian, stde_bilaplacian, stde_laplacian

__all__ = [
    "BilaplacianParts",
    "HessianDiagonalParts",
    "LaplacianParts",
    "advection",
    "bilaplacian",
    "curl",
    "directional",
    "divergence",
    "hessian_diagonal",
    "hutchinson_divergence",
    "hutchinson_laplacian",
    "jacobian_diagonal",
    "jet",
    "laplacian",
    "partial",
    "partials",
    "stde_bilaplacian",
    "stde_laplacian",
    "strain",
]
