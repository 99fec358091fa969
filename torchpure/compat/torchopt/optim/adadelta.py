"""Adadelta of parameters, in place."""

from collections.abc import Iterable

from torch import Tensor

from torchpure.compat.torchopt import alias
from torchpure.compat.torchopt.typing import ScalarOrSchedule

from .base import Optimizer

__all__ = ["AdaDelta", "Adadelta"]


class AdaDelta(Optimizer):
    """Adadelta: update parameters in place, from their `grad`."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: ScalarOrSchedule = 1.0,
        rho: float = 0.9,
        eps: float = 1e-06,
        weight_decay: float = 0.0,
    ) -> None:
        """Make the optimizer; the numbers are those of `adadelta`."""
        super().__init__(params, alias.adadelta(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay))


Adadelta = AdaDelta
