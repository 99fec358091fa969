"""Two values along a direction of the unit sphere (Shamir 2017, arXiv:1507.08752, equation 2)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Key, Params, Tree
from torchpure.transforms.engine import is_variable

from ._samples import normal_like
from ._smoothing import smoothed


def two_point(fn: Callable[..., Tensor], radius: float | Tensor = 1e-2, num_samples: int = 16) -> Callable[..., Grads]:
    """Return `estimate(params, *args, key=key)`: the mean of d (f(p + r u) − f(p − r u)) u / (2 r) over unit vectors u.

    d is the number of parameters, r the radius. The estimate is unbiased for the gradient of f averaged over the ball
    of that radius. Its directions have one length, so its variance is below that of `central_difference`. All else is
    as there.

    Law: the mean over keys is the gradient of the mean of f over a ball.

    Raises:
        TransformError: `radius` is not above 0, `num_samples` is below 1, or `fn` does not return a scalar.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import random
    >>> two_point(lambda x: 3 * x, num_samples=2)(torch.tensor(1.0), key=random.key(0)).round()
    tensor(3.)
    """

    def weight(value: Callable[[Tree, float | Tensor], Tensor], v: Tree, _: Any) -> Tensor:
        step = radius / _count(v) ** 0.5  # v = √d u: the weight times v is d (…) u / (2 r)
        return (value(v, step) - value(v, -step)) / (2 * step)

    return smoothed("two_point", fn, radius, num_samples, _scaled_unit_vector, weight, size_name="radius")


def _scaled_unit_vector(key: Key, params: Params) -> Tree:
    """Draw a vector of length √d."""
    drawn = normal_like(key, params)
    parts = [leaf for leaf in tree.leaves(drawn) if is_variable(leaf)]
    factor = _count(drawn) ** 0.5 / tree.norm(parts)
    return tree.map(lambda leaf: None if leaf is None else leaf * factor.to(leaf), drawn)


def _count(params: Params) -> int:
    return sum(leaf.numel() for leaf in tree.leaves(params) if is_variable(leaf))
