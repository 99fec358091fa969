"""Adagrad of modules, differentiable."""

from torch import nn

from torchpure.compat.torchopt import alias
from torchpure.compat.torchopt.typing import ScalarOrSchedule

from .base import MetaOptimizer

__all__ = ["MetaAdaGrad", "MetaAdagrad"]


class MetaAdaGrad(MetaOptimizer):
    """Adagrad: update the tensors of a module, whose steps autograd records."""

    def __init__(
        self,
        module: nn.Module,
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
            module,
            alias.adagrad(
                lr=lr,
                lr_decay=lr_decay,
                weight_decay=weight_decay,
                initial_accumulator_value=initial_accumulator_value,
                eps=eps,
                maximize=maximize,
            ),
        )


MetaAdagrad = MetaAdaGrad
