"""The addition of updates to parameters."""

from typing import Any

from torch import Tensor

from . import pytree

__all__ = ["apply_updates"]


def apply_updates(params: Any, updates: Any, *, inplace: bool = True) -> Any:
    """Add updates to parameters: to their data if `inplace`, else as a new tree, which autograd records.

    >>> import torch
    >>> apply_updates((torch.tensor(1.0),), (torch.tensor(2.0),), inplace=False)
    (tensor(3.),)
    """

    def add_(param: Tensor, update: Tensor | None) -> Tensor:
        if update is not None:
            param.data.add_(update)
        return param

    def add(param: Tensor, update: Tensor | None) -> Tensor:
        return param if update is None else param.add(update)

    return pytree.tree_map(add_ if inplace else add, params, updates)
