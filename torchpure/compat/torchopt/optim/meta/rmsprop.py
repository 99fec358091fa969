"""RMSprop of modules, differentiable."""

from torch import nn

from torchpure.compat.torchopt import alias
from torchpure.compat.torchopt.typing import ScalarOrSchedule

from .base import MetaOptimizer

__all__ = ["MetaRMSProp", "MetaRMSprop"]


class MetaRMSProp(MetaOptimizer):
    """RMSprop: update the tensors of a module, whose steps autograd records."""

    def __init__(
        self,
        module: nn.Module,
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
            module,
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


MetaRMSprop = MetaRMSProp
