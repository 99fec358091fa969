"""Adam's step of one tensor, by the name of torchopt's fused operation."""

from typing import Any

import torch
from torch import Tensor

from torchpure.compat.torchopt.transform import scale_by_adam

__all__ = ["AdamOp"]


class AdamOp:
    """Compute Adam's update of one tensor.

    Its derivatives are exact; those of torchopt's neglect `eps` and `eps_root`.
    """

    def __init__(
        self, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, *, eps_root: float = 0.0, inplace: bool = True
    ) -> None:
        """Keep the numbers of Adam's formula."""
        self.b1, self.b2, self.eps, self.eps_root, self.inplace = b1, b2, eps, eps_root, inplace

    def __call__(self, mu: Tensor, nu: Tensor, updates: Tensor | None, count: Any) -> tuple[Any, ...]:
        """Return (new mu, new nu, update), for step number `count` ≥ 1.

        `mu`, `nu` and `updates` are written if `inplace`.
        """
        if updates is None:
            return mu, nu, None
        adam = scale_by_adam(self.b1, self.b2, self.eps, self.eps_root)
        previous = torch.as_tensor(count, device=updates.device).long() - 1
        state = adam.init((updates,))._replace(mu=(mu,), nu=(nu,), count=(previous,))
        (update,), new = adam.update((updates,), state, inplace=self.inplace)
        if self.inplace and not update.requires_grad:
            update = updates.copy_(update)
        return new.mu[0], new.nu[0], update
