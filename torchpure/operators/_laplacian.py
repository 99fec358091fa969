"""Operators of second order: Laplacian, bilaplacian, diagonal of the Hessian."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import hint_keywords
from torchpure.transforms.derivatives import Argnums

from ._follow import Unfollowed
from ._forms import DIAGONAL, Form, weighted
from ._fourth_order import fourth_order
from ._point import Point, operator
from ._second_order import second_order
from ._sparse import trace


class LaplacianParts(NamedTuple):
    """What the pass of a Laplacian computes."""

    value: Tree
    gradient: Tree  # as `jacfwd` returns it; as `grad` for a scalar function
    laplacian: Tree  # like the value


class BilaplacianParts(NamedTuple):
    """What the passes of a bilaplacian compute; all like the value."""

    value: Tree
    laplacian: Tree
    bilaplacian: Tree


class HessianDiagonalParts(NamedTuple):
    """What the pass of a diagonal of a Hessian computes."""

    value: Tree
    gradient: Tree
    diagonal: Tree  # like the gradient


@hint_keywords()
def laplacian(
    fn: Callable[..., Any],
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    weights: Tensor | None = None,
    with_value: bool = False,
) -> Callable[..., Any]:
    """Return the function that computes the Laplacian Δf = Σ ∂²f/∂x_i² over all D coordinates of the point.

    The result is like the value of `fn`, a tensor or a tree of any shapes: the Laplacian of each entry. With `weights`
    of shape (D,) it is Σ w_i ∂²f/∂x_i², with shape (D, D) Σ w_ij ∂²f/∂x_i∂x_j. With `with_value` it is
    (value, gradient, laplacian), at no further cost. Value, first derivatives and Laplacian are carried through `fn` in
    one pass (Li et al. 2023, arXiv:2307.08214); `vmap` makes many points of one.

    Law: `laplacian(f)(x) == hessian(f)(x).diagonal().sum()` for a scalar `f` of a vector.

    Raises:
        TransformError: there is nothing to differentiate, the point is complex, or the weights have another shape.

    >>> import torch
    >>> laplacian(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0]))
    tensor(18.)
    """

    def run(point: Point) -> tuple[Tree, Tree]:
        weighs = weights is not None
        pass_ = (
            partial(second_order, form=_weighted(point, weights)) if weighs else partial(trace, with_first=with_value)
        )
        found = pass_(point.call, point.leaves, point.basis())
        if not with_value:
            return found.second, found.aux
        return LaplacianParts(found.value, point.arranged(found.first), found.second), found.aux

    return operator("laplacian", fn, argnums, has_aux, run)


def _weighted(point: Point, weights: Tensor) -> Form:
    count = sum(point.sizes)
    if not isinstance(weights, Tensor) or tuple(weights.shape) not in {(count,), (count, count)}:
        raise TransformError(
            f"laplacian: weights must have shape ({count},) or ({count}, {count}) for {count} coordinates, "
            f"got {tree.describe(weights)}"
        )
    return weighted(weights.to(point.leaves[0].dtype))


@hint_keywords()
def bilaplacian(
    fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, with_value: bool = False
) -> Callable[..., Any]:
    """Return the function that computes the bilaplacian Δ(Δf).

    With `with_value` the result is (value, laplacian, bilaplacian). All else is as in `laplacian`.

    Law: `bilaplacian(f) == laplacian(laplacian(f))`.

    Raises:
        TransformError: as for `laplacian`.

    >>> import torch
    >>> bilaplacian(lambda x: (x**4).sum())(torch.tensor([1.0, 2.0]))
    tensor(48.)
    """

    def run(point: Point) -> tuple[Tree, Tree]:
        value, once, twice, aux = _twice(point)
        return (BilaplacianParts(value, once, twice) if with_value else twice), aux

    return operator("bilaplacian", fn, argnums, has_aux, run)


def _twice(point: Point) -> tuple[Tree, ...]:
    """Return the value, Δ, Δ² and aux: in one pass, or as a Laplacian of a Laplacian."""
    basis = point.basis()
    if not is_dynamo_compiling():  # it traces no function modes
        try:
            return fourth_order(point.call, point.leaves, basis)
        except Unfollowed:
            pass

    def inner(*leaves: Tensor) -> tuple[Tree, Tree]:
        found = trace(point.call, leaves, basis, with_first=False)
        return (found.value, found.second), found.aux

    found = trace(inner, point.leaves, basis, with_first=False)
    value, once = found.value
    return value, once, found.second[1], found.aux


@hint_keywords()
def hessian_diagonal(
    fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, with_value: bool = False
) -> Callable[..., Any]:
    """Return the function that computes each ∂²f/∂x_i², without the rest of the Hessian.

    The result has the structure of `grad`'s for a scalar function, and of `jacfwd`'s for others. With `with_value` it
    is (value, gradient, diagonal).

    Law: `hessian_diagonal(f)(x) == hessian(f)(x).diagonal()` for a scalar `f` of a vector.

    Raises:
        TransformError: as for `laplacian`.

    >>> import torch
    >>> hessian_diagonal(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0]))
    tensor([ 6., 12.])
    """

    def run(point: Point) -> tuple[Tree, Tree]:
        found = second_order(point.call, point.leaves, point.basis(), DIAGONAL)
        diagonal = point.arranged(found.second)
        if not with_value:
            return diagonal, found.aux
        return HessianDiagonalParts(found.value, point.arranged(found.first), diagonal), found.aux

    return operator("hessian_diagonal", fn, argnums, has_aux, run)
