"""SGD of modules, differentiable."""

from torch import nn

from torchpure.compat.torchopt import alias
from torchpure.compat.torchopt.typing import ScalarOrSchedule

from .base import MetaOptimizer

__all__ = ["MetaSGD"]


class MetaSGD(MetaOptimizer):
    """SGD: update the tensors of a module, whose steps autograd records."""

    def __init__(
        self,
        module: nn.Module,
        lr: ScalarOrSchedule,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        moment_requires_grad: bool = True,
        maximize: bool = False,
    ) -> None:
        """Make the optimizer; the numbers are those of `sgd`."""
        super().__init__(
            module,
            alias.sgd(
                lr=lr,
                momentum=momentum,
                dampening=dampening,
                weight_decay=weight_decay,
                nesterov=nesterov,
                moment_requires_grad=moment_requires_grad,
                maximize=maximize,
            ),
        )
