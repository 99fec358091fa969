"""Simultaneous perturbation stochastic approximation (Spall 1992)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchpure._types import Grads, Tree

from ._samples import signs_like
from ._smoothing import smoothed


def spsa(fn: Callable[..., Tensor], step: float | Tensor = 1e-2, num_samples: int = 1) -> Callable[..., Grads]:
    """Return `estimate(params, *args, key=key)`: the mean of (f(p + c s) − f(p − c s)) / (2 c s) over signs s = ±1.

    c is the step. Two values give all entries of the gradient, whatever their number. The bias is of order c², and zero
    for quadratic functions. `fn(params, *args)` returns a scalar, and needs no derivative.

    Law: the mean over keys is the gradient, for quadratic functions.

    Raises:
        TransformError: `step` is not above 0, `num_samples` is below 1, or `fn` does not return a scalar.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import random
    >>> spsa(lambda x: x**2)(torch.tensor(1.5), key=random.key(0)).round(decimals=3)
    tensor(3.)
    """

    def weight(value: Callable[[Tree, float | Tensor], Tensor], signs: Tree, _: Any) -> Tensor:
        return (value(signs, step) - value(signs, -step)) / (2 * step)

    return smoothed("spsa", fn, step, num_samples, signs_like, weight, size_name="step")
