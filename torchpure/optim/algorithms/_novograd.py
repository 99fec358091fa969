"""NovoGrad (Ginsburg et al. 2019, arXiv:1905.11286, algorithm 1)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Tree, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    check_nonnegative,
    check_scalar_or_schedule,
    check_unit_interval,
    evaluate_schedule,
    hint_torch_keywords,
    init_moments,
    init_per_leaf,
    init_step_count,
    leafwise,
    safe_sqrt,
)
from torchpure.optim.transformations import scale_by_learning_rate


class NovogradState(NamedTuple):
    """State of `scale_by_novograd`."""

    step: Step  # float64, shape ()
    mean: Params  # decaying sum of the normalised gradients
    square: Tree  # running mean of the squared norm of each leaf, shape ()


@hint_torch_keywords
def scale_by_novograd(
    *,
    b1: Number = 0.9,
    b2: Number = 0.25,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mu_dtype: torch.dtype | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[NovogradState]:
    """Accumulate normalised gradients: m ← b1 m + g / (√(v + eps_root) + eps) + weight_decay p.

    v ← b2 v + (1 − b2) ‖g‖², with the norm of each leaf. At the first step v is ‖g‖², and m is its first term.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), or another number is negative.

    >>> novograd, params = scale_by_novograd(), torch.tensor([1.0, 1.0])
    >>> novograd.update(torch.tensor([3.0, 4.0]), novograd.init(params), params)[0]
    tensor([0.6000, 0.8000])
    """
    check_unit_interval("scale_by_novograd", b1=b1, b2=b2)
    check_nonnegative("scale_by_novograd", eps=eps, eps_root=eps_root)
    check_scalar_or_schedule("scale_by_novograd", weight_decay, "weight_decay")

    def init(params: Params) -> NovogradState:
        return NovogradState(
            init_step_count(params),
            init_moments(params, mu_dtype or accumulator_dtype),
            init_per_leaf(lambda p: p.new_zeros(()), params, accumulator_dtype),
        )

    def update(grads: Grads, state: NovogradState, params: Params) -> tuple[Updates, NovogradState]:
        decay = evaluate_schedule(weight_decay, state.step)
        is_first = state.step == 0

        def rule(g: Tensor, m: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            norm = g.square().sum()
            v = torch.where(is_first, norm, b2 * v + (1 - b2) * norm)
            term = g / (safe_sqrt(v + eps_root) + eps) + decay * p
            m = torch.where(is_first, term, b1 * m + term)
            return m, m, v

        updates, mean, square = leafwise(
            "scale_by_novograd", rule, grads, (state.mean, state.square), params, scalars=1
        )
        return updates, NovogradState(state.step + 1, mean, square)

    return Optimizer(init, update)


@hint_torch_keywords
def novograd(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.25,
    eps: Number = 1e-6,
    eps_root: Number = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with NovoGrad: p ← p − learning_rate m, with m of `scale_by_novograd`.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), or another number is negative.

    >>> opt, params = novograd(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    scaled = scale_by_novograd(
        b1=b1, b2=b2, eps=eps, eps_root=eps_root, weight_decay=weight_decay, accumulator_dtype=accumulator_dtype
    )
    return chain(scaled, scale_by_learning_rate(learning_rate))
