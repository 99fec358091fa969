"""RMSprop of parameters, in place."""

from collections.abc import Iterable

from torch import Tensor

from torchpure.compat.torchopt import alias
from torchpure.compat.torchopt.typing import ScalarOrSchedule

from .base import Optimizer

__all__ = ["RMSProp", "RMSprop"]


class RMSProp(Optimizer):
    """RMSprop: update parameters in place, from their `grad`."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: ScalarOrSchedule = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        initial_scale: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
    ) -> None:
        """Make the optimizer; the numbers are those of `rmsprop`."""
        super().__init__(
            params,
            alias.rmsprop(
                lr=lr,
                alpha=alpha,
                eps=eps,
                weight_decay=weight_decay,
                momentum=momentum,
                centered=centered,
                initial_scale=initial_scale,
                nesterov=nesterov,
                maximize=maximize,
            ),
        )


RMSprop = RMSProp
