"""RMSProp (Tieleman and Hinton 2012, lecture 6.5), centred (Graves 2013, arXiv:1308.0850, equations 38 to 42)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    bias_correction,
    check_nonnegative,
    check_unit_interval,
    ema_update,
    hint_torch_keywords,
    identity,
    init_moments,
    init_step_count,
    leafwise,
    safe_sqrt,
)
from torchpure.optim.transformations import scale_by_learning_rate, trace


class RmsState(NamedTuple):
    """State of `scale_by_rms` and `scale_by_stddev`."""

    step: Step  # float64, shape ()
    mean: Params | None  # running mean of the gradients; None if not centred
    square: Params  # running mean of their squares


@hint_torch_keywords
def scale_by_rms(
    *,
    decay: Number = 0.9,
    eps: Number = 1e-8,
    initial_scale: Number = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[RmsState]:
    """Divide gradients by their root mean square: u = g / √(v + eps).

    v ← decay v + (1 − decay) g², and v starts at `initial_scale`. Without `eps_in_sqrt`, u = g / (√v + eps). With
    `bias_correction`, v is divided by 1 − decayᵗ.

    Raises:
        ValueError: `decay` is not in [0, 1), or another number negative.

    >>> import torch
    >>> rms, params = scale_by_rms(decay=0.75), torch.tensor([1.0])
    >>> rms.update(torch.tensor([3.0]), rms.init(params), params)[0]
    tensor([2.])
    """
    return _build(
        "scale_by_rms", decay, eps, initial_scale, eps_in_sqrt, bias_correction, accumulator_dtype, centred=False
    )


@hint_torch_keywords
def scale_by_stddev(
    *,
    decay: Number = 0.9,
    eps: Number = 1e-8,
    initial_scale: Number = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[RmsState]:
    """Divide gradients by their standard deviation: u = g / √(v − m² + eps).

    m ← decay m + (1 − decay) g. v and the options are those of `scale_by_rms`.

    Raises:
        ValueError: `decay` is not in [0, 1), or another number negative.

    >>> import torch
    >>> deviation, params = scale_by_stddev(decay=0.5), torch.tensor([1.0])
    >>> deviation.update(torch.tensor([3.0]), deviation.init(params), params)[0]
    tensor([2.])
    """
    return _build(
        "scale_by_stddev", decay, eps, initial_scale, eps_in_sqrt, bias_correction, accumulator_dtype, centred=True
    )


def _build(
    caller: str,
    decay: Number,
    eps: Number,
    initial: Number,
    eps_in_sqrt: bool,
    correct_bias: bool,
    dtype: torch.dtype | None,
    *,
    centred: bool,
) -> Optimizer[RmsState]:
    check_unit_interval(caller, decay=decay)
    check_nonnegative(caller, eps=eps, initial_scale=initial)

    def init(params: Params) -> RmsState:
        mean = init_moments(params, dtype) if centred else None
        return RmsState(init_step_count(params), mean, init_moments(params, dtype, initial))

    def update(grads: Grads, state: RmsState, params: Params) -> tuple[Updates, RmsState]:
        step = state.step + 1
        correction = bias_correction(decay, step) if correct_bias else 1.0

        def rule(g: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            *mean, v, _ = rest
            v = ema_update(v, g.square(), decay)
            new = [ema_update(m, g, decay) for m in mean]
            variance = v / correction
            if new:  # squares that overflow stay infinite
                variance = torch.where(v.isinf(), v, variance - (new[0] / correction).square())
            u = g / safe_sqrt(variance + eps) if eps_in_sqrt else g / (safe_sqrt(variance) + eps)
            return u, *new, v

        states = (state.mean, state.square) if centred else (state.square,)
        updates, *new = leafwise(caller, rule, grads, states, params)
        return updates, RmsState(step, new[0] if centred else None, new[-1])

    return Optimizer(init, update)


@hint_torch_keywords
def rmsprop(
    learning_rate: ScalarOrSchedule,
    *,
    decay: Number = 0.9,
    eps: Number = 1e-8,
    initial_scale: Number = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Number | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with RMSProp: p ← p − learning_rate u, with u of `scale_by_rms`, or of `scale_by_stddev` if `centered`.

    Momentum is applied after the learning rate, as in optax. With `eps_in_sqrt=False` it is applied before, as in
    torch.optim.RMSprop. The `alpha` of torch is `decay` here; its default is 0.99.

    Raises:
        ValueError: `decay` is not in [0, 1), or another number negative.

    >>> import torch
    >>> opt, params = rmsprop(0.1, decay=0.75), torch.tensor([1.0])
    >>> opt.step(torch.tensor([3.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    scaled = (scale_by_stddev if centered else scale_by_rms)(
        decay=decay,
        eps=eps,
        initial_scale=initial_scale,
        eps_in_sqrt=eps_in_sqrt,
        bias_correction=bias_correction,
        accumulator_dtype=accumulator_dtype,
    )
    summed = identity() if momentum is None else trace(momentum, nesterov=nesterov, accumulator_dtype=accumulator_dtype)
    descend = scale_by_learning_rate(learning_rate)
    # with a constant learning rate, both orders give the same steps
    return chain(scaled, descend, summed) if eps_in_sqrt else chain(scaled, summed, descend)
