"""Embeddings whose padding row is a constant forwards too, as it is in torch's backward pass."""

import torch
from torch import Tensor
from torch.nn import functional as F


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Compute `F.embedding`; its gradient is dense."""
    if padding_idx is not None:
        padding = torch.arange(weight.shape[0], device=weight.device) == padding_idx % weight.shape[0]
        weight = torch.where(padding[:, None], weight.detach(), weight)
    return F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)
