"""AdamW of modules, differentiable."""

from collections.abc import Callable
from typing import Any

from torch import nn

from torchpure.compat.torchopt import alias
from torchpure.compat.torchopt.typing import ScalarOrSchedule

from .base import MetaOptimizer

__all__ = ["MetaAdamW"]


class MetaAdamW(MetaOptimizer):
    """AdamW: update the tensors of a module, whose steps autograd records."""

    def __init__(
        self,
        module: nn.Module,
        lr: ScalarOrSchedule = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        *,
        eps_root: float = 0.0,
        mask: Any | Callable[[Any], Any] | None = None,
        moment_requires_grad: bool = False,
        maximize: bool = False,
        use_accelerated_op: bool = False,
    ) -> None:
        """Make the optimizer; the numbers are those of `adamw`."""
        super().__init__(
            module,
            alias.adamw(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                eps_root=eps_root,
                mask=mask,
                moment_requires_grad=moment_requires_grad,
                maximize=maximize,
                use_accelerated_op=use_accelerated_op,
            ),
        )
