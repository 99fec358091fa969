"""Adam with Nesterov's momentum (Dozat 2016, "Incorporating Nesterov momentum into Adam", algorithm 2).

In optax's form, with constant b1, or with `momentum_decay` in torch's, where b1 rises by the paper's schedule.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Mask,
    Number,
    Optimizer,
    bias,
    blend,
    check_positive,
    check_unit,
    count,
    is_zero,
    leafwise,
    moments,
    safe_sqrt,
    scalar,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate

from ._adam import scale_by_adam


class NadamState(NamedTuple):
    """State of `scale_by_nadam`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares
    product: Tensor  # of all momenta so far; float64, shape ()


def scale_by_nadam(
    *, b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8, momentum_decay: Number = 4e-3
) -> Optimizer[NadamState]:
    """Scale as Adam with Nesterov's momentum μₜ = b1 (1 − 0.96^(t momentum_decay) / 2), as torch.optim.NAdam does.

    u = (μₜ₊₁ m / (1 − Πₜ₊₁) + (1 − μₜ) g / (1 − Πₜ)) / (√v̂ + eps), Πₜ = μ₁ ⋯ μₜ.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), `eps` or `momentum_decay` negative.

    >>> nadam, params = scale_by_nadam(b1=0.0), torch.tensor([1.0])
    >>> nadam.update(torch.tensor([2.0]), nadam.init(params), params)[0]
    tensor([1.])
    """
    check_unit("scale_by_nadam", b1=b1, b2=b2)
    check_positive("scale_by_nadam", eps=eps, momentum_decay=momentum_decay)

    def momentum(step: Step) -> Tensor:
        return b1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))

    def init(params: Params) -> NadamState:
        return NadamState(count(params), moments(params), moments(params), scalar(1.0, params))

    def update(grads: Grads, state: NadamState, params: Params) -> tuple[Updates, NadamState]:
        step = state.step + 1
        now, ahead = momentum(step), momentum(step + 1)
        product = state.product * now

        def rule(g: Tensor, m: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m, v = blend(m, g, b1), blend(v, g.square(), b2)
            direction = ahead / (1 - product * ahead) * m + (1 - now) / (1 - product) * g
            return direction / (safe_sqrt(v / bias(b2, step)) + eps), m, v

        updates, mean, square = leafwise("scale_by_nadam", rule, grads, (state.mean, state.square), params)
        return updates, NadamState(step, mean, square, product)

    return Optimizer(init, update)


def _scaled(
    b1: Number, b2: Number, eps: Number, eps_root: Number, mu_dtype: torch.dtype | None, momentum_decay: Number | None
) -> Optimizer[Any]:
    if momentum_decay is None:
        return scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype, nesterov=True)
    if mu_dtype is not None or not is_zero(eps_root):
        raise ValueError("nadam: torch's form, with momentum_decay, has neither eps_root nor mu_dtype")
    return scale_by_nadam(b1=b1, b2=b2, eps=eps, momentum_decay=momentum_decay)


def nadam(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    momentum_decay: Number | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step as `scale_by_adam(nesterov=True)` says, times −learning_rate; with `momentum_decay` as `scale_by_nadam`.

    The first is optax's, the second torch's, whose momentum_decay is 4e-3.

    Raises:
        ValueError: a number is out of its range, or torch's form is asked for with `eps_root` or `mu_dtype`.

    >>> opt, params = nadam(0.1, b1=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    scaled = _scaled(b1, b2, eps, eps_root, mu_dtype, momentum_decay)
    return chain(scaled, scale_by_learning_rate(learning_rate))


def nadamw(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    momentum_decay: Number | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step as `nadam`, and shrink the parameters by learning_rate · weight_decay.

    Raises:
        ValueError: a number is out of its range, or torch's form is asked for with `eps_root` or `mu_dtype`.

    >>> opt, params = nadamw(0.1, b1=0.0, weight_decay=0.5), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8500])
    """
    return chain(
        _scaled(b1, b2, eps, eps_root, mu_dtype, momentum_decay),
        add_decayed_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )
