"""What optimizers do to single leaves."""

from typing import Any

import torch
from torch import Tensor


def safe_sqrt(value: Tensor) -> Tensor:
    """Take the square root, with derivative 0 at 0.

    >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
    >>> torch.autograd.grad(safe_sqrt(x).sum(), x)[0]
    tensor([0.0000, 0.2500])
    """
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1).sqrt(), 0)  # the true derivative at 0 is infinite


def real_parts(leaves: list[Any]) -> list[Any]:
    """View each complex leaf as its real and imaginary parts, in a last dimension of 2."""
    return [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in leaves]


def like(originals: list[Any], leaves: list[Any]) -> list[Any]:
    """Undo `real_parts`."""
    pairs = zip(originals, leaves, strict=True)
    return [torch.view_as_complex(leaf.contiguous()) if old.is_complex() else leaf for old, leaf in pairs]
