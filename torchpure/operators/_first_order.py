"""Operators of first order: divergence, curl, diagonal of the Jacobian, strain, advection."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms import jvp
from torchpure.transforms.calls import hint_keywords
from torchpure.transforms.derivatives import Argnums
from torchpure.transforms.engine import describe_function

from ._point import Point, operator, same_shape
from ._second_order import Rows, rows_along


def _rows(point: Point) -> Rows:
    return rows_along(point.call, point.leaves, point.basis())


@hint_keywords()
def jacobian_diagonal(
    fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, with_value: bool = False
) -> Callable[..., Any]:
    """Return the function that computes ∂f_i/∂x_i for each i, in the structure of the point.

    The value has the structure and shapes of the point. With `with_value` the result is (value, diagonal).

    Law: `jacobian_diagonal(f)(x) == jacfwd(f)(x).diagonal()`.

    Raises:
        TransformError: the value has other shapes than the point, or as for `laplacian`.

    >>> import torch
    >>> jacobian_diagonal(lambda x: x**2 + x.sum())(torch.tensor([1.0, 2.0]))
    tensor([3., 5.])
    """

    def run(point: Point) -> tuple[Tree, Tree]:
        value, diagonals, aux = _diagonals(point)
        result = point.like_arguments(diagonals)
        return ((value, result) if with_value else result), aux

    return operator("jacobian_diagonal", fn, argnums, has_aux, run)


def _diagonals(point: Point) -> tuple[Tree, list[Tensor], Tree]:
    value, rows, aux = _rows(point)
    same_shape(point, value)
    start, diagonals = 0, []
    for part, leaf, size in zip(tree.leaves(rows), point.leaves, point.sizes, strict=True):
        square = part[start : start + size].reshape(size, size)
        diagonals.append(square.diagonal().reshape(leaf.shape))
        start += size
    return value, diagonals, aux


@hint_keywords()
def divergence(
    fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, with_value: bool = False
) -> Callable[..., Any]:
    """Return the function that computes the divergence Σ ∂f_i/∂x_i of a vector field, of shape ().

    The value has the structure and shapes of the point. With `with_value` the result is (value, divergence).

    Law: `divergence(grad(f)) == laplacian(f)`.

    Raises:
        TransformError: as for `jacobian_diagonal`.

    >>> import torch
    >>> divergence(lambda x: x**2)(torch.tensor([1.0, 2.0]))
    tensor(6.)
    """

    def run(point: Point) -> tuple[Tree, Tree]:
        value, diagonals, aux = _diagonals(point)
        total = sum((part.sum() for part in diagonals[1:]), diagonals[0].sum())
        return ((value, total) if with_value else total), aux

    return operator("divergence", fn, argnums, has_aux, run)


def _matrix(point: Point, dims: tuple[int, ...] | None) -> tuple[Tensor, Tensor, Tree]:
    """Return the value, the Jacobian ∂f_i/∂x_j of shape (D, D), and aux, of a field of vectors of shape (D,)."""
    leaves = point.leaves
    if len(leaves) != 1 or leaves[0].ndim != 1 or (dims and leaves[0].shape[0] not in dims):
        wanted = " or ".join(f"({dim},)" for dim in dims) if dims else "(D,)"
        raise TransformError(
            f"{point.caller}: the point of {describe_function(point.fn)} must be one tensor of shape {wanted}, got "
            f"{', '.join(map(tree.describe, leaves))}. It is taken at one point: use tp.vmap for many"
        )
    value, rows, aux = _rows(point)
    same_shape(point, value)
    (row,) = tree.leaves(rows)
    return value, row.mT, aux


@hint_keywords()
def curl(
    fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, with_value: bool = False
) -> Callable[..., Any]:
    """Return the function that computes the curl of a vector field in two or three dimensions.

    In three its shape is (3,). In two its shape is (), and it is ∂f_2/∂x_1 - ∂f_1/∂x_2. With `with_value` the result
    is (value, curl).

    Law: `curl(grad(f)) == 0`.
    Law: `divergence(curl(f)) == 0`.

    Raises:
        TransformError: the point or the value is no vector of two or three entries.

    >>> import torch
    >>> curl(lambda x: torch.stack([x[2], x[0], x[1]]))(torch.tensor([1.0, 2.0, 3.0]))
    tensor([1., 1., 1.])
    """

    def run(point: Point) -> tuple[Tree, Tree]:
        value, jac, aux = _matrix(point, (2, 3))
        turn = jac - jac.mT
        result = turn[1, 0] if len(jac) == 2 else torch.stack([turn[2, 1], turn[0, 2], turn[1, 0]])
        return ((value, result) if with_value else result), aux

    return operator("curl", fn, argnums, has_aux, run)


@hint_keywords()
def strain(
    fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, with_value: bool = False
) -> Callable[..., Any]:
    """Return the function that computes the strain ε = (∇u + ∇uᵀ)/2 of a displacement or a velocity, of shape (D, D).

    With `with_value` the result is (value, strain).

    Law: the trace of `strain(f)` is `divergence(f)`.

    Raises:
        TransformError: the point or the value is no vector, or their sizes differ.

    >>> import torch
    >>> strain(lambda x: torch.stack([x[1], x[1]]))(torch.tensor([1.0, 2.0]))
    tensor([[0.0000, 0.5000],
            [0.5000, 1.0000]])
    """

    def run(point: Point) -> tuple[Tree, Tree]:
        value, jac, aux = _matrix(point, None)
        result = (jac + jac.mT) / 2
        return ((value, result) if with_value else result), aux

    return operator("strain", fn, argnums, has_aux, run)


@hint_keywords()
def advection(
    fn: Callable[..., Any],
    velocity: Tree | Callable[..., Tree] = None,
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    with_value: bool = False,
) -> Callable[..., Any]:
    """Return the function that computes (v·∇)f, from one forward derivative; the result is like the value.

    `velocity` is a tree like the point, or a function of the arguments of `fn`. Without it the field carries itself:
    (f·∇)f, as in the equations of Burgers and of Navier and Stokes. With `with_value` the result is (value, advection).

    Law: `advection(f, v)(x) == jacfwd(f)(x) @ v`.

    Raises:
        TransformError: the velocity has other shapes than the point, or as for `laplacian`.

    >>> import torch
    >>> advection(lambda x: x**2)(torch.tensor([1.0, 2.0]))
    tensor([ 2., 16.])
    """

    def run(point: Point) -> tuple[Tree, Tree]:
        direction = point.match("the velocity", point.velocity(velocity))
        value, result, aux = jvp(point.call, tuple(point.leaves), tuple(direction), has_aux=True)
        return ((value, result) if with_value else result), aux

    return operator("advection", fn, argnums, has_aux, run)
