"""COCOB-Backprop (Orabona and Tommasi 2017, arXiv:1705.07795, algorithm 2): a bet on each coordinate."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import Mask, Number, Optimizer, check_positive, check_scalar, copies, leafwise, moments
from torchpure.optim.transformations import add_decayed_weights, scale, scale_by_schedule


class CocobState(NamedTuple):
    """State of `scale_by_cocob`."""

    start: Params  # the first parameters
    total: Params  # sum of the negative gradients
    largest: Params  # of the sizes of the gradients
    sizes: Params  # sum of the sizes of the gradients
    reward: Params  # what the bets have won


def scale_by_cocob(*, alpha: Number = 100.0, eps: Number = 1e-8) -> Optimizer[CocobState]:
    """Move to p₀ + θ (L + R) / (L max(G + L, alpha L)): θ sums −g, G and L sum and bound |g|, R is the reward.

    Raises:
        ValueError: `alpha` or `eps` is negative.

    >>> bets, params = scale_by_cocob(alpha=1.0), torch.tensor([1.0])
    >>> bets.update(torch.tensor([2.0]), bets.init(params), params)[0]
    tensor([-0.5000])
    """
    check_positive("scale_by_cocob", alpha=alpha, eps=eps)

    def rule(g: Tensor, start: Tensor, total: Tensor, top: Tensor, sizes: Tensor, won: Tensor, p: Tensor) -> Any:
        top, sizes = torch.maximum(top, g.abs()), sizes + g.abs()
        won = (won - g * (p - start)).clamp(min=0)
        total = total - g
        place = start + total / (top * torch.maximum(sizes + top, alpha * top)) * (top + won)
        return place - p, start.clone(), total, top, sizes, won

    def init(params: Params) -> CocobState:
        start = copies(params)
        return CocobState(start, moments(params), moments(params, value=eps), moments(params), moments(params))

    def update(grads: Grads, state: CocobState, params: Params) -> tuple[Updates, CocobState]:
        updates, *states = leafwise("scale_by_cocob", rule, grads, tuple(state), params)
        return updates, CocobState(*states)

    return Optimizer(init, update)


def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    alpha: Number = 100.0,
    eps: Number = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step as `scale_by_cocob` says, with learning_rate (g + weight_decay p) as the gradient; as optax has it.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = cocob(alpha=1.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.5000])
    """
    check_scalar("cocob", learning_rate)
    times = scale_by_schedule(learning_rate) if callable(learning_rate) else scale(learning_rate)
    return chain(add_decayed_weights(weight_decay, mask=mask), times, scale_by_cocob(alpha=alpha, eps=eps))
