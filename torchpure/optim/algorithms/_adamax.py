"""AdaMax (Kingma and Ba 2015, arXiv:1412.6980, algorithm 2), also with decoupled weight decay."""

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
    leafwise,
    moments,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate


class AdamaxState(NamedTuple):
    """State of `scale_by_adamax`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    largest: Params  # decaying maximum of their size


def scale_by_adamax(*, b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8) -> Optimizer[AdamaxState]:
    """Divide the mean gradient by a decaying maximum: m̂ / v, v ← max(b2 v, |g| + eps). The same in torch and optax.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), or `eps` negative.

    >>> adamax, params = scale_by_adamax(), torch.tensor([1.0])
    >>> adamax.update(torch.tensor([2.0]), adamax.init(params), params)[0]
    tensor([1.])
    """
    check_unit("scale_by_adamax", b1=b1, b2=b2)
    check_positive("scale_by_adamax", eps=eps)

    def update(grads: Grads, state: AdamaxState, params: Params) -> tuple[Updates, AdamaxState]:
        step = state.step + 1
        first = bias(b1, step)

        def rule(g: Tensor, m: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            m, v = blend(m, g, b1), torch.maximum(b2 * v, g.abs() + eps)
            return (m / first) / v, m, v

        updates, mean, largest = leafwise("scale_by_adamax", rule, grads, (state.mean, state.largest), params)
        return updates, AdamaxState(step, mean, largest)

    return Optimizer(lambda params: AdamaxState(count(params), moments(params), moments(params)), update)


def adamax(
    learning_rate: ScalarOrSchedule, *, b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8
) -> Optimizer[tuple[Any, ...]]:
    """Step as `scale_by_adamax` says, times −learning_rate.

    Raises:
        ValueError: `learning_rate` or `eps` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = adamax(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    return chain(scale_by_adamax(b1=b1, b2=b2, eps=eps), scale_by_learning_rate(learning_rate))


def adamaxw(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step as `adamax`, and shrink the parameters by learning_rate · weight_decay.

    Raises:
        ValueError: `learning_rate`, `eps` or `weight_decay` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = adamaxw(0.1, weight_decay=0.5), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8500])
    """
    return chain(
        scale_by_adamax(b1=b1, b2=b2, eps=eps),
        add_decayed_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )
