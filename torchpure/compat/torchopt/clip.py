"""Clipping of gradients by their norm."""

from typing import Any

import torch

from . import pytree
from .base import EmptyState, GradientTransformation

__all__ = ["clip_grad_norm"]

ClipState = EmptyState


def clip_grad_norm(max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> GradientTransformation:
    """Scale all updates together, so that the norm of their entries is at most `max_norm`.

    The factor is a constant for autograd, as in torchopt. Under a transform it stays a tensor.

    >>> clip = clip_grad_norm(1.0)
    >>> clip.update((torch.tensor([3.0, 4.0]),), clip.init(()))[0]
    (tensor([0.6000, 0.8000]),)
    """

    def update(updates: Any, state: Any, *, params: Any = None, inplace: bool = True) -> tuple[Any, Any]:
        leaves = pytree.tree_leaves(updates)
        if not leaves:
            return updates, state
        with torch.no_grad():
            norms = [torch.linalg.vector_norm(leaf.detach(), norm_type).to(leaves[0].device) for leaf in leaves]
            total = torch.linalg.vector_norm(torch.stack(norms), norm_type)
            if error_if_nonfinite and not total.isfinite():
                raise RuntimeError(
                    f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it "
                    f"cannot be "
                    "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
                    "`error_if_nonfinite=False`"
                )
            factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
        # a NaN norm leaves the updates alone, as min(nan, 1.0) does in torchopt
        return pytree.tree_map(lambda leaf: leaf.mul_(factor) if inplace else leaf.mul(factor), updates), state

    return GradientTransformation(lambda params: ClipState(), update)
