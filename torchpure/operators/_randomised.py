"""Estimates from a few random directions, for points with many coordinates.

Hutchinson 1990 (probes of ±1); Shi, Hu, Lin, Kawaguchi 2024 (stochastic Taylor derivatives), arXiv:2412.00088.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key, Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable, hint_keywords
from torchpure.transforms.derivatives import Argnums
from torchpure.transforms.engine import describe_function

from ._collapsed import sum_of_series
from ._forms import TRACE
from ._point import Point, same_shape
from ._second_order import rows_along, second_order
from .rules import explained

Draw = Callable[[Key, Point, int], list[Tensor]]  # directions, of shape (samples, *leaf)
Estimate = Callable[[Point, list[Tensor]], tuple[Tree, Tree]]


@hint_keywords()
def hutchinson_laplacian(
    fn: Callable[..., Any], num_samples: int = 16, argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the function that estimates the Laplacian: the mean of vᵀ(∂²f)v over random v with entries ±1.

    It takes the arguments of `fn` and `key`. The estimate is unbiased. It costs as much as a Laplacian of `num_samples`
    coordinates. It is exact if the Hessian is diagonal.

    Law: the mean of `hutchinson_laplacian(f)` over keys is `laplacian(f)`.

    Raises:
        TransformError: the number of samples is below one, or as for `laplacian`.
        TypeError: `key` is not a key.

    >>> from torchpure import random
    >>> hutchinson_laplacian(lambda x: (x**2).sum())(torch.ones(1000), key=random.key(0))
    tensor(2000.)
    """
    return _estimator("hutchinson_laplacian", fn, num_samples, argnums, has_aux, _signs, _mean_curvature)


@hint_keywords()
def hutchinson_divergence(
    fn: Callable[..., Any], num_samples: int = 16, argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the function that estimates the divergence: the mean of vᵀ(∂f)v over random v with entries ±1.

    All else is as in `hutchinson_laplacian`. Densities of flows need it (FFJORD, arXiv:1810.01367).

    Law: the mean of `hutchinson_divergence(f)` over keys is `divergence(f)`.

    Raises:
        TransformError: the number of samples is below one, or as for `divergence`.
        TypeError: `key` is not a key.

    >>> from torchpure import random
    >>> hutchinson_divergence(lambda x: 3 * x)(torch.ones(1000), key=random.key(0))
    tensor(3000.)
    """

    def estimate(point: Point, directions: list[Tensor]) -> tuple[Tree, Tree]:
        value, rows, aux = rows_along(point.call, point.leaves, directions)
        same_shape(point, value)
        parts = [(row * one).sum() for row, one in zip(tree.leaves(rows), directions, strict=True)]
        return sum(parts[1:], parts[0]) / num_samples, aux

    return _estimator("hutchinson_divergence", fn, num_samples, argnums, has_aux, _signs, estimate)


@hint_keywords()
def stde_laplacian(
    fn: Callable[..., Any], num_samples: int = 16, argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the function that estimates the Laplacian from ∂²f/∂x_i² of random coordinates, drawn without replacement.

    It takes the arguments of `fn` and `key`. The estimate is unbiased, and exact if all coordinates are drawn.

    Law: the mean of `stde_laplacian(f)` over keys is `laplacian(f)`.

    Raises:
        TransformError: the number of samples is below one or above the number of coordinates, or as for `laplacian`.
        TypeError: `key` is not a key.

    >>> from torchpure import random
    >>> stde_laplacian(lambda x: (x**2).sum())(torch.ones(1000), key=random.key(0))
    tensor(2000.)
    """

    def estimate(point: Point, directions: list[Tensor]) -> tuple[Tree, Tree]:
        mean, aux = _mean_curvature(point, directions)
        return tree.map(lambda part: part * sum(point.sizes), mean), aux

    return _estimator("stde_laplacian", fn, num_samples, argnums, has_aux, _coordinates, estimate)


@hint_keywords()
def stde_bilaplacian(
    fn: Callable[..., Any], num_samples: int = 16, argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the function that estimates the bilaplacian: a third of the mean of d⁴f(x + tv)/dt⁴ over normal v.

    It takes the arguments of `fn` and `key`. All samples take one pass in Taylor mode, whose last coefficients are
    summed. The estimate is unbiased.

    Law: the mean of `stde_bilaplacian(f)` over keys is `bilaplacian(f)`.

    Raises:
        TransformError: the number of samples is below one, or as for `laplacian`.
        TypeError: `key` is not a key.

    >>> from torchpure import random
    >>> stde_bilaplacian(lambda x: (x**2).sum())(torch.ones(1000), key=random.key(0))
    tensor(0.)
    """

    def estimate(point: Point, directions: list[Tensor]) -> tuple[Tree, Tree]:
        total, aux = sum_of_series(point.call, point.leaves, directions, 4)
        return tree.map(lambda part: part * (8 / num_samples), total), aux  # 4! / 3

    return _estimator("stde_bilaplacian", fn, num_samples, argnums, has_aux, _normals, estimate)


def _mean_curvature(point: Point, directions: list[Tensor]) -> tuple[Tree, Tree]:
    found = second_order(point.call, point.leaves, directions, TRACE)
    return tree.map(lambda part: part / directions[0].shape[0], found.second), found.aux


def _signs(key: Key, point: Point, count: int) -> list[Tensor]:
    keys = random.split(key, len(point.leaves))
    return [
        2 * random.bernoulli(one, 0.5, (count, *leaf.shape)).to(leaf) - 1
        for one, leaf in zip(keys, point.leaves, strict=True)
    ]


def _normals(key: Key, point: Point, count: int) -> list[Tensor]:
    keys = random.split(key, len(point.leaves))
    return [
        random.normal(one, (count, *leaf.shape), dtype=leaf.dtype).to(leaf)
        for one, leaf in zip(keys, point.leaves, strict=True)
    ]


def _coordinates(key: Key, point: Point, count: int) -> list[Tensor]:
    """Draw unit vectors of different coordinates, without the whole basis."""
    total, start, vectors = sum(point.sizes), 0, []
    if count > total:
        raise TransformError(
            f"{point.caller}: num_samples={count} is more than the {total} coordinates of the point of "
            f"{describe_function(point.fn)}: use tp.laplacian, which is exact"
        )
    chosen = random.permutation(key, total)[:count, None]
    for leaf, size in zip(point.leaves, point.sizes, strict=True):
        rows = chosen.to(leaf.device) == torch.arange(start, start + size, device=leaf.device)
        vectors.append(rows.to(leaf.dtype).reshape(count, *leaf.shape))
        start += size
    return vectors


def _estimator(
    caller: str,
    fn: Callable[..., Any],
    num_samples: int,
    argnums: Argnums,
    has_aux: bool,
    draw: Draw,
    estimate: Estimate,
) -> Callable[..., Any]:
    check_callable(caller, fn)
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
        raise TransformError(f"{caller}: num_samples must be an int, at least 1, got {num_samples!r}")

    def estimated(*args: Tree, key: Key, **kwargs: Any) -> Any:
        random.check_key(key, caller)
        point = Point(caller, fn, argnums, has_aux, args, kwargs)
        with explained(caller, fn):
            result, aux = estimate(point, draw(key, point, num_samples))
        return (result, aux) if has_aux else result

    return estimated
