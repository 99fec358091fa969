"""Adadelta of modules, differentiable."""

from torch import nn

from torchpure.compat.torchopt import alias
from torchpure.compat.torchopt.typing import ScalarOrSchedule

from .base import MetaOptimizer

__all__ = ["MetaAdaDelta", "MetaAdadelta"]


class MetaAdaDelta(MetaOptimizer):
    """Adadelta: update the tensors of a module, whose steps autograd records."""

    def __init__(
        self,
        module: nn.Module,
        lr: ScalarOrSchedule = 1.0,
        rho: float = 0.9,
        eps: float = 1e-06,
        weight_decay: float = 0.0,
        *,
        moment_requires_grad: bool = True,
    ) -> None:
        """Make the optimizer; the numbers are those of `adadelta`."""
        super().__init__(
            module,
            alias.adadelta(
                lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, moment_requires_grad=moment_requires_grad
            ),
        )


MetaAdadelta = MetaAdaDelta
