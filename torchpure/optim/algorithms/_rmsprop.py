"""RMSProp (Tieleman and Hinton 2012, lecture 6.5), also centred (Graves 2013, arXiv:1308.0850, equations 38 to 42)."""

from typing import Any, NamedTuple

from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    bias,
    blend,
    check_positive,
    check_unit,
    count,
    identity,
    leafwise,
    moments,
    safe_sqrt,
)
from torchpure.optim.transformations import scale_by_learning_rate, trace


class RmsState(NamedTuple):
    """State of `scale_by_rms` and `scale_by_stddev`."""

    step: Step  # float64, shape ()
    mean: Params | None  # running mean of the gradients; None when not centred
    square: Params  # running mean of their squares


def scale_by_rms(
    *,
    decay: Number = 0.9,
    eps: Number = 1e-8,
    initial_scale: Number = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> Optimizer[RmsState]:
    """Divide gradients by the root of their mean square: g / √(v + eps), or g / (√v + eps) if not `eps_in_sqrt`.

    Raises:
        ValueError: `decay` is not in [0, 1), or another number negative.

    >>> import torch
    >>> rms, params = scale_by_rms(decay=0.75), torch.tensor([1.0])
    >>> rms.update(torch.tensor([3.0]), rms.init(params), params)[0]
    tensor([2.])
    """
    return _build("scale_by_rms", decay, eps, initial_scale, eps_in_sqrt, bias_correction, centred=False)


def scale_by_stddev(
    *,
    decay: Number = 0.9,
    eps: Number = 1e-8,
    initial_scale: Number = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> Optimizer[RmsState]:
    """Divide gradients by their standard deviation: as `scale_by_rms`, with v − m² in the place of v.

    Raises:
        ValueError: `decay` is not in [0, 1), or another number negative.

    >>> import torch
    >>> deviation, params = scale_by_stddev(decay=0.5), torch.tensor([1.0])
    >>> deviation.update(torch.tensor([3.0]), deviation.init(params), params)[0]
    tensor([2.])
    """
    return _build("scale_by_stddev", decay, eps, initial_scale, eps_in_sqrt, bias_correction, centred=True)


def _build(
    who: str, decay: Number, eps: Number, initial: Number, inside: bool, correct: bool, centred: bool
) -> Optimizer[RmsState]:
    check_unit(who, decay=decay)
    check_positive(who, eps=eps, initial_scale=initial)

    def init(params: Params) -> RmsState:
        return RmsState(count(params), moments(params) if centred else None, moments(params, value=initial))

    def update(grads: Grads, state: RmsState, params: Params) -> tuple[Updates, RmsState]:
        step = state.step + 1
        share = bias(decay, step) if correct else 1.0

        def rule(g: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            *mean, v, _ = rest
            v = blend(v, g.square(), decay)
            new = [blend(m, g, decay) for m in mean]
            spread = v / share - (new[0] / share).square() if new else v / share
            u = g / safe_sqrt(spread + eps) if inside else g / (safe_sqrt(spread) + eps)
            return u, *new, v

        states = (state.mean, state.square) if centred else (state.square,)
        updates, *new = leafwise(who, rule, grads, states, params)
        return updates, RmsState(step, new[0] if centred else None, new[-1])

    return Optimizer(init, update)


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
) -> Optimizer[tuple[Any, ...]]:
    """Step as `scale_by_rms` says, or `scale_by_stddev` if `centered`, times −learning_rate.

    Momentum, if given, comes after the learning rate. With `eps_in_sqrt=False` it is torch's, whose `alpha` is `decay`
    (its default is 0.99), and whose momentum comes before the learning rate.

    Raises:
        ValueError: `decay` is not in [0, 1), or another number negative.

    >>> import torch
    >>> opt, params = rmsprop(0.1, decay=0.75), torch.tensor([1.0])
    >>> opt.step(torch.tensor([3.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    scaled = (scale_by_stddev if centered else scale_by_rms)(
        decay=decay, eps=eps, initial_scale=initial_scale, eps_in_sqrt=eps_in_sqrt, bias_correction=bias_correction
    )
    summed = identity() if momentum is None else trace(momentum, nesterov=nesterov)
    descend = scale_by_learning_rate(learning_rate)
    # with a constant learning rate both orders are the same
    return chain(scaled, descend, summed) if eps_in_sqrt else chain(scaled, summed, descend)
