"""AdamW of parameters, in place."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from torchpure.compat.torchopt import alias
from torchpure.compat.torchopt.typing import ScalarOrSchedule

from .base import Optimizer

__all__ = ["AdamW"]


class AdamW(Optimizer):
    """AdamW: update parameters in place, from their `grad`."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: ScalarOrSchedule = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        *,
        eps_root: float = 0.0,
        mask: Any | Callable[[Any], Any] | None = None,
        maximize: bool = False,
        use_accelerated_op: bool = False,
    ) -> None:
        """Make the optimizer; the numbers are those of `adamw`."""
        super().__init__(
            params,
            alias.adamw(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                eps_root=eps_root,
                mask=mask,
                maximize=maximize,
                use_accelerated_op=use_accelerated_op,
            ),
        )
