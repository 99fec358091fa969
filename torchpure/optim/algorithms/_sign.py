"""Sign descent (Bernstein et al. 2018, arXiv:1802.04434, algorithm 1)."""

from typing import Any

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import EmptyState, Optimizer, hint_torch_keywords, leafwise
from torchpure.optim.transformations import scale_by_learning_rate


def scale_by_sign() -> Optimizer[EmptyState]:
    """Take the sign of each entry: u = sign(g). For a complex entry, take the sign of both parts.

    >>> sign, params = scale_by_sign(), torch.zeros(2)
    >>> sign.update(torch.tensor([3.0, -0.1]), sign.init(params), params)[0]
    tensor([ 1., -1.])
    """

    def update(grads: Grads, state: EmptyState, params: Params) -> tuple[Updates, EmptyState]:
        def rule(g: Tensor, p: Tensor) -> Tensor:
            return torch.sign(g)

        return leafwise("scale_by_sign", rule, grads, (), params), state

    return Optimizer(lambda params: EmptyState(), update)


@hint_torch_keywords
def sign_sgd(learning_rate: ScalarOrSchedule) -> Optimizer[tuple[Any, ...]]:
    """Step with sign descent: p ← p − learning_rate sign(g).

    Raises:
        ValueError: `learning_rate` is negative.

    >>> opt, params = sign_sgd(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([5.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))
