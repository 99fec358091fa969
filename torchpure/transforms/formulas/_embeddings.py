"""Embeddings whose padding row is a constant forwards too, as it is in torch's backward pass."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
    """Compute `F.embedding`."""
    if padding_idx is not None:
        padding = torch.arange(weight.shape[0], device=weight.device) == padding_idx % weight.shape[0]
        weight = torch.where(padding[:, None], weight.detach(), weight)
    return F.embedding(input, weight, padding_idx, *args, **kwargs)
