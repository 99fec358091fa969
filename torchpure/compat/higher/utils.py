"""Parameters of a module as tensors of an inner loop, and flat lists."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["flatten", "get_func_params"]


def flatten(x: Any) -> list[Any]:
    """List what nests of lists, tuples and dicts hold.

    >>> flatten([1, (2, {"a": 3})])
    [1, 2, 3]
    """
    if isinstance(x, Mapping):
        return flatten(list(x.values()))
    if isinstance(x, list | tuple):
        return [leaf for part in x for leaf in flatten(part)]
    return [x]


def get_func_params(module: nn.Module, device: torch.device | None = None, safe_copy: bool = True) -> list[Tensor]:
    """List the parameters of a module: copies of their own, or with `safe_copy=False` tensors with their gradients.

    >>> [leaf.is_leaf for leaf in get_func_params(nn.Linear(1, 1), safe_copy=False)]
    [False, False]
    """
    found = []
    for leaf in module.parameters():
        moved = leaf.to(device) if device is not None else leaf
        copied = moved.detach().clone().requires_grad_(leaf.requires_grad) if safe_copy else moved.clone()
        found.append(copied)
    return found
