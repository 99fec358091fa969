"""AMSGrad (Reddi, Kale and Kumar 2018, arXiv:1904.09237, algorithm 2)."""

from typing import Any, NamedTuple

import torch
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
    leafwise,
    moments,
    safe_sqrt,
)
from torchpure.optim.transformations import scale_by_learning_rate


class AmsgradState(NamedTuple):
    """State of `scale_by_amsgrad`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares
    largest: Params  # the largest of these so far


def scale_by_amsgrad(
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    correct_after_max: bool = False,
) -> Optimizer[AmsgradState]:
    """Divide the mean gradient by the root of the largest mean square so far: m̂ / (√(max v̂ + eps_root) + eps).

    That is optax's. With `correct_after_max` the largest is taken of v, and corrected for its start at zero afterwards,
    which is torch's `Adam(amsgrad=True)`.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), `eps` or `eps_root` negative.

    >>> ams, params = scale_by_amsgrad(), torch.tensor([1.0])
    >>> ams.update(torch.tensor([2.0]), ams.init(params), params)[0]
    tensor([1.])
    """
    check_unit("scale_by_amsgrad", b1=b1, b2=b2)
    check_positive("scale_by_amsgrad", eps=eps, eps_root=eps_root)

    def init(params: Params) -> AmsgradState:
        return AmsgradState(count(params), moments(params, mu_dtype), moments(params), moments(params))

    def update(grads: Grads, state: AmsgradState, params: Params) -> tuple[Updates, AmsgradState]:
        step = state.step + 1
        first = bias(b1, step) if bias_correction_mu else 1.0
        second = bias(b2, step) if bias_correction_nu else 1.0

        def rule(g: Tensor, m: Tensor, v: Tensor, top: Tensor, p: Tensor) -> tuple[Tensor, ...]:
            m, v = blend(m, g, b1), blend(v, g.square(), b2)
            top = torch.maximum(top, v if correct_after_max else v / second)
            used = top / second if correct_after_max else top
            return (m / first) / (safe_sqrt(used + eps_root) + eps), m, v, top

        updates, *states = leafwise("scale_by_amsgrad", rule, grads, state[1:], params)
        return updates, AmsgradState(step, *states)

    return Optimizer(init, update)


def amsgrad(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    correct_after_max: bool = False,
) -> Optimizer[tuple[Any, ...]]:
    """Step as `scale_by_amsgrad` says, times −learning_rate.

    Raises:
        ValueError: `learning_rate`, `eps` or `eps_root` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = amsgrad(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    scaled = scale_by_amsgrad(
        b1=b1, b2=b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype, correct_after_max=correct_after_max
    )
    return chain(scaled, scale_by_learning_rate(learning_rate))
