"""Adagrad (Duchi, Hazan and Singer 2011, "Adaptive subgradient methods", figure 1, diagonal)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    check_nonnegative,
    hint_torch_keywords,
    init_moments,
    leafwise,
    safe_sqrt,
)
from torchpure.optim.transformations import scale_by_learning_rate


class RssState(NamedTuple):
    """State of `scale_by_rss`."""

    total: Params  # sum of the squared gradients


@hint_torch_keywords
def scale_by_rss(
    *,
    initial_accumulator_value: Number = 0.1,
    eps: Number = 1e-7,
    eps_in_sqrt: bool = True,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[RssState]:
    """Divide gradients by the root of the sum of their squares: u = g / √(s + eps), with s ← s + g².

    Where s is 0, u is 0. This is the formula of optax. With `eps_in_sqrt=False`, as in torch, u = g / (√s + eps).

    Raises:
        ValueError: a number is negative.

    >>> rss, params = scale_by_rss(initial_accumulator_value=16.0, eps=0.0), torch.tensor([1.0])
    >>> rss.update(torch.tensor([3.0]), rss.init(params), params)[0]
    tensor([0.6000])
    """
    check_nonnegative("scale_by_rss", initial_accumulator_value=initial_accumulator_value, eps=eps)

    def rule(g: Tensor, s: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        s = s + g.square()
        if not eps_in_sqrt:
            return g / (safe_sqrt(s) + eps), s
        return torch.where(s > 0, g / safe_sqrt(torch.where(s > 0, s, 1) + eps), 0), s

    def update(grads: Grads, state: RssState, params: Params) -> tuple[Updates, RssState]:
        updates, total = leafwise("scale_by_rss", rule, grads, (state.total,), params)
        return updates, RssState(total)

    return Optimizer(
        lambda params: RssState(init_moments(params, accumulator_dtype, value=initial_accumulator_value)), update
    )


@hint_torch_keywords
def adagrad(
    learning_rate: ScalarOrSchedule,
    *,
    initial_accumulator_value: Number = 0.1,
    eps: Number = 1e-7,
    eps_in_sqrt: bool = True,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with Adagrad: p ← p − learning_rate u, with u of `scale_by_rss`.

    torch.optim.Adagrad has `eps_in_sqrt=False` and an initial accumulator value of 0.

    Raises:
        ValueError: a number is negative.

    >>> opt, params = adagrad(0.1, initial_accumulator_value=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([3.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    scaled = scale_by_rss(
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
        eps_in_sqrt=eps_in_sqrt,
        accumulator_dtype=accumulator_dtype,
    )
    return chain(scaled, scale_by_learning_rate(learning_rate))
