"""Products and running products without a division, so that zeros are no special case."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import ForwardRule, ForwardRuleCall
from torchpure.transforms.engine import is_variable

from ._safe_product import safe_product


class _Product(ForwardRuleCall):
    """∏ xᵢ over the last dimension: d ∏ xᵢ = Σⱼ dxⱼ ∏_{i≠j} xᵢ."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return (torch.prod(tensors[0], -1),)

    def push_forward(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        return [safe_product(tangents[0], products_of_others(tensors[0])).sum(-1)]


class _RunningProduct(ForwardRuleCall):
    """yₖ = ∏_{i≤k} xᵢ over the last dimension: dyₖ = dyₖ₋₁ xₖ + yₖ₋₁ dxₖ, in log n steps."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return (torch.cumprod(tensors[0], -1),)

    def push_forward(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        y, moved, shift = tensors[0], tangents[0], 1
        while shift < y.shape[-1]:
            left, right = y[..., :-shift], y[..., shift:]
            pushed = safe_product(moved[..., :-shift], right) + safe_product(left, moved[..., shift:])
            moved = torch.cat([moved[..., :shift], pushed], -1)
            y = torch.cat([y[..., :shift], safe_product(left, right)], -1)
            shift *= 2
        return [moved]


_PRODUCT, _RUNNING_PRODUCT = _Product(), _RunningProduct()


def products_of_others(x: Tensor) -> Tensor:
    """Return ∏_{i≠j} xᵢ over the last dimension for each j: products up a binary tree, and down again.

    >>> products_of_others(torch.tensor([2.0, 3.0, 5.0]))
    tensor([15., 10.,  6.])
    """
    size, levels = x.shape[-1], [x]
    while levels[-1].shape[-1] > 1:
        level = levels[-1]
        if level.shape[-1] % 2:
            level = levels[-1] = torch.cat([level, torch.ones_like(level[..., :1])], -1)
        levels.append(safe_product(level[..., 0::2], level[..., 1::2]))
    others = torch.ones_like(levels.pop())
    while levels:
        pairs = levels.pop().unflatten(-1, (-1, 2))
        others = safe_product(others[..., : pairs.shape[-2], None], pairs.flip(-1)).flatten(-2)
    return others[..., :size]


def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Compute `torch.prod`."""
    x = input if dtype is None else input.to(dtype)
    if not is_variable(x) or (dim is None and keepdim):
        return torch.prod(input, dim, keepdim, dtype=dtype) if dim is not None else torch.prod(input, dtype=dtype)
    if dim is None or x.ndim == 0:
        return _over_last(x.flatten() if dim is None else x.reshape(1))
    out = _over_last(x.movedim(dim, -1))
    return out.unsqueeze(dim) if keepdim else out


def _over_last(x: Tensor) -> Tensor:
    return ForwardRule.apply(_PRODUCT, x)[0] if x.shape[-1] else torch.prod(x, -1)


def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Compute `torch.cumprod`."""
    x = input if dtype is None else input.to(dtype)
    if not is_variable(x) or not x.ndim or not x.numel():
        return torch.cumprod(input, dim, dtype=dtype)
    return ForwardRule.apply(_RUNNING_PRODUCT, x.movedim(dim, -1))[0].movedim(-1, dim)
