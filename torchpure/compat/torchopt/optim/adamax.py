"""Adamax of parameters, in place."""

from collections.abc import Iterable

from torch import Tensor

from torchpure.compat.torchopt import alias
from torchpure.compat.torchopt.typing import ScalarOrSchedule

from .base import Optimizer

__all__ = ["AdaMax", "Adamax"]


class AdaMax(Optimizer):
    """Adamax: update parameters in place, from their `grad`."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: ScalarOrSchedule = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
    ) -> None:
        """Make the optimizer; the numbers are those of `adamax`."""
        super().__init__(params, alias.adamax(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))


Adamax = AdaMax
