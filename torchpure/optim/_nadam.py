"""Adam with Nesterov's momentum (Dozat 2016, "Incorporating Nesterov momentum into Adam", algorithm 2).

In optax's form, with constant b1; torch's NAdam lets b1 rise by a schedule, and is `lift(torch.optim.NAdam)`.
"""

from typing import Any

import torch

from torchpure._types import Rate

from ._adam import scale_by_adam
from ._base import Optimizer
from ._chain import chain
from ._decay import add_decayed_weights
from ._formulas import Number
from ._masks import Mask
from ._scale import scale_by_learning_rate


def nadam(
    rate: Rate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
) -> Optimizer[Any]:
    """Step as `scale_by_adam(nesterov=True)` says, times −rate.

    Raises:
        ValueError: `rate`, `eps` or `eps_root` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = nadam(0.1, b1=0.0), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    scaled = scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype, nesterov=True)
    return chain(scaled, scale_by_learning_rate(rate))


def nadamw(
    rate: Rate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    decay: Rate = 1e-4,
    mask: Mask = None,
) -> Optimizer[Any]:
    """Step as `nadam`, and shrink the parameters by rate · decay.

    Raises:
        ValueError: `rate`, `eps`, `eps_root` or `decay` is negative, `b1` or `b2` not in [0, 1).

    >>> opt, params = nadamw(0.1, b1=0.0, decay=0.5), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8500])
    """
    return chain(
        scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype, nesterov=True),
        add_decayed_weights(decay, mask=mask),
        scale_by_learning_rate(rate),
    )
