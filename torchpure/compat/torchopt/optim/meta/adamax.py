"""Adamax of modules, differentiable."""

from torch import nn

from torchpure.compat.torchopt import alias
from torchpure.compat.torchopt.typing import ScalarOrSchedule

from .base import MetaOptimizer

__all__ = ["MetaAdaMax", "MetaAdamax"]


class MetaAdaMax(MetaOptimizer):
    """Adamax: update the tensors of a module, whose steps autograd records."""

    def __init__(
        self,
        module: nn.Module,
        lr: ScalarOrSchedule = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        moment_requires_grad: bool = True,
    ) -> None:
        """Make the optimizer; the numbers are those of `adamax`."""
        super().__init__(
            module,
            alias.adamax(
                lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, moment_requires_grad=moment_requires_grad
            ),
        )


MetaAdamax = MetaAdaMax
