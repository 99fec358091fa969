"""Adagrad of parameters, in place."""

from collections.abc import Iterable

from torch import Tensor

from torchpure.compat.torchopt import alias
from torchpure.compat.torchopt.typing import ScalarOrSchedule

from .base import Optimizer

__all__ = ["AdaGrad", "Adagrad"]


class AdaGrad(Optimizer):
    """Adagrad: update parameters in place, from their `grad`."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: ScalarOrSchedule = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        """Make the optimizer; the numbers are those of `adagrad`."""
        super().__init__(
            params,
            alias.adagrad(
                lr=lr,
                lr_decay=lr_decay,
                weight_decay=weight_decay,
                initial_accumulator_value=initial_accumulator_value,
                eps=eps,
                maximize=maximize,
            ),
        )


Adagrad = AdaGrad
