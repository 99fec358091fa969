"""Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Rate, Step, Updates

from ._base import Optimizer, active, check_positive, check_rate, check_unit, count, moments, rate_at
from ._kernels import adam_kernel
from ._leaves import like, real_parts, safe_sqrt


class AdamState(NamedTuple):
    """State of `adam` and `adamw`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares; of a complex leaf, those of the real and the imaginary part


def adam(rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer[AdamState]:
    """Step along the mean gradient over the root of the mean square: p ← p − rate m̂ / (√v̂ + eps).

    m ← b1 m + (1 − b1) g and v ← b2 v + (1 − b2) g² are corrected for their start at zero: m̂ = m / (1 − b1ᵗ) and
    v̂ = v / (1 − b2ᵗ). Differentiable in everything, with finite derivatives where a gradient is exactly zero.

    Raises:
        ValueError: `rate` or `eps` is negative, `b1` or `b2` not in [0, 1).

    >>> opt = adam(0.1)
    >>> params = torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    return build("adam", rate, b1, b2, eps, decay=0.0)


def build(who: str, rate: Rate, b1: float, b2: float, eps: float, decay: float) -> Optimizer[AdamState]:
    """Build Adam with weight decay apart from the gradient; none at decay 0."""
    check_rate(who, rate)
    check_unit(who, b1=b1, b2=b2)
    check_positive(who, eps=eps, decay=decay)

    def init(params: Params) -> AdamState:
        return AdamState(count(params), moments(params), moments(params))

    def update(grads: Grads, state: AdamState, params: Params) -> tuple[Updates, AdamState]:
        (p, *columns), restore = active(who, params, grads, state.mean, state.square)
        x, g, m, v = map(real_parts, (p, *columns))
        step = state.step + 1
        m = tree.lerp(m, g, 1 - b1)
        v = tree.add(tree.scale(v, b2), tree.scale(tree.map(torch.square, g), 1 - b2))
        direction = tree.map(_direction(1 - b1**step, 1 - b2**step, eps), m, v)
        if isinstance(decay, Tensor) or decay:
            direction = tree.add(direction, tree.scale(x, decay))
        updates, m, v = (like(p, part) for part in (tree.scale(direction, -rate_at(rate, state.step)), m, v))
        return restore(updates, None), AdamState(step, restore(m, state.mean), restore(v, state.square))

    return Optimizer(init, update, adam_kernel(who, rate, b1, b2, eps, decay))


def _direction(correction1: Tensor, correction2: Tensor, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return m̂ / (√v̂ + eps) for the two bias corrections."""

    def direction(m: Tensor, v: Tensor) -> Tensor:
        c1, root2 = tree.cast(correction1, m), tree.cast(correction2.sqrt(), v)
        return (m / c1) / (safe_sqrt(v) / root2 + tree.cast(eps, v))

    return direction
