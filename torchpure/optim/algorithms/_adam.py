"""Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.core import (
    Kernel,
    Number,
    Optimizer,
    active,
    adam_kernels,
    bias,
    check_positive,
    check_scalar,
    check_unit,
    count,
    is_zero,
    leafwise,
    moments,
    safe_sqrt,
    value_at,
)


class AdamState(NamedTuple):
    """State of `scale_by_adam`, `adam` and `adamw`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares; of a complex leaf, those of the real and the imaginary part


def scale_by_adam(
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    nesterov: bool = False,
) -> Optimizer[AdamState]:
    """Divide the mean gradient by the root of the mean square: m̂ / (√(v̂ + eps_root) + eps).

    m ← b1 m + (1 − b1) g and v ← b2 v + (1 − b2) g² are corrected for their start at zero: m̂ = m / (1 − b1ᵗ) and
    v̂ = v / (1 − b2ᵗ). With `nesterov`, m̂ = b1 m / (1 − b1ᵗ⁺¹) + (1 − b1) g / (1 − b1ᵗ) (Dozat 2016, algorithm 2).
    The mean has the dtype `mu_dtype`, else that of its parameter.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), `eps` or `eps_root` negative.

    >>> adam = scale_by_adam()
    >>> params = torch.tensor([1.0])
    >>> adam.update(torch.tensor([2.0]), adam.init(params), params)[0]
    tensor([1.])
    """
    return build_scale("scale_by_adam", b1, b2, eps, eps_root, mu_dtype, nesterov)


def adam(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
) -> Optimizer[AdamState]:
    """Step along the mean gradient over the root of the mean square.

    p ← p − learning_rate m̂ / (√(v̂ + eps_root) + eps), where m ← b1 m + (1 − b1) g and v ← b2 v + (1 − b2) g² are
    corrected for their start at zero: m̂ = m / (1 − b1ᵗ) and v̂ = v / (1 − b2ᵗ). Differentiable in everything, with
    finite derivatives where a gradient is exactly zero.

    Raises:
        ValueError: `learning_rate`, `eps` or `eps_root` is negative, `b1` or `b2` not in [0, 1).

    >>> opt = adam(0.1)
    >>> params = torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    scaled = build_scale("adam", b1, b2, eps, eps_root, mu_dtype, nesterov=False)
    plain = is_zero(eps_root) and mu_dtype is None
    return descend(
        "adam", learning_rate, 0.0, scaled, adam_kernels("adam", learning_rate, b1, b2, eps, 0.0) if plain else ()
    )


def build_scale(
    who: str, b1: Number, b2: Number, eps: Number, eps_root: Number, mu_dtype: torch.dtype | None, nesterov: bool
) -> Optimizer[AdamState]:
    """Build `scale_by_adam` under the name that its errors shall have."""
    check_unit(who, b1=b1, b2=b2)
    check_positive(who, eps=eps, eps_root=eps_root)

    def init(params: Params) -> AdamState:
        return AdamState(count(params), moments(params, mu_dtype), moments(params))

    def update(grads: Grads, state: AdamState, params: Params) -> tuple[Updates, AdamState]:
        (g, m, v, _), restore = active(who, grads, (state.mean, state.square), params)
        step = state.step + 1
        m = tree.lerp(m, g, 1 - b1)
        v = tree.add(tree.scale(v, b2), tree.scale(tree.map(torch.square, g), 1 - b2))
        ratio = _ratio(1.0 / bias(b2, step), eps, eps_root)
        if nesterov:
            ahead, now = b1 / bias(b1, step + 1), (1 - b1) / bias(b1, step)
            direction = tree.map(ratio, tree.add(tree.scale(m, ahead), tree.scale(g, now)), v)
        else:
            direction = tree.map(ratio, tree.scale(m, 1.0 / bias(b1, step)), v)
        return restore(direction), AdamState(step, restore(m, state.mean), restore(v, state.square))

    return Optimizer(init, update)


def _ratio(correction: Tensor, eps: Number, eps_root: Number) -> Callable[[Tensor, Tensor], Tensor]:
    """Return m̂ / (√(correction v + eps_root) + eps) as a function of m̂ and v."""

    def ratio(m: Tensor, v: Tensor) -> Tensor:
        return m / (safe_sqrt(tree.cast(correction, v) * v + tree.cast(eps_root, v)) + tree.cast(eps, v))

    return ratio


def descend(
    who: str,
    learning_rate: ScalarOrSchedule,
    weight_decay: Number,
    scaled: Optimizer[AdamState],
    kernels: Sequence[Kernel | None] = (),
) -> Optimizer[AdamState]:
    """Step against `scaled`, with weight decay apart from the gradient; none at decay 0.

    The kernels, if there are any, are the plain one and the donated one.
    """
    check_scalar(who, learning_rate)
    check_positive(who, weight_decay=weight_decay)

    def update(grads: Grads, state: AdamState, params: Params) -> tuple[Updates, AdamState]:
        direction, new_state = scaled.rule(grads, state, params)
        if not is_zero(weight_decay):
            direction = leafwise(who, lambda u, p: u + weight_decay * p, direction, (), params)
        return tree.scale(direction, -value_at(learning_rate, state.step)), new_state

    kernel, donated = kernels or (None, None)
    return Optimizer(scaled.init, update, kernel, donated=donated)
