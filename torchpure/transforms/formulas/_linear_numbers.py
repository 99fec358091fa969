"""Sums and fills with numbers that may be tensors: `alpha`, `beta`, `value`, `fill_value`, `dx`, `correction`."""

from typing import Any

import torch
from torch import Tensor


def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """Compute `torch.add`."""
    return torch.add(input, _times(other, alpha, input))


def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """Compute `torch.sub`."""
    return torch.sub(input, _times(other, alpha, input))


def rsub(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """Compute `torch.rsub`."""
    return torch.sub(other, _times(input, alpha, input))


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """Compute `torch.index_add`."""
    return torch.index_add(input, dim, index, _times(source, alpha, source))


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """Compute `torch.addcmul`."""
    return input + _times(tensor1 * tensor2, value, input)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """Compute `torch.addcdiv`."""
    return input + _times(tensor1 / tensor2, value, input)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Compute `torch.addmm`, and `torch.addmv` with a vector."""
    return _times(input, beta, input) + _times(mat1 @ mat2, alpha, input)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Compute `torch.addr`."""
    return _times(input, beta, input) + _times(torch.outer(vec1, vec2), alpha, input)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Compute `torch.addbmm`."""
    return _times(input, beta, input) + _times((batch1 @ batch2).sum(0), alpha, input)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, **other: Any) -> Tensor:
    """Compute `torch.full`."""
    made = torch.full(size, 0.0, dtype=dtype or torch.get_default_dtype(), device=device or fill_value.device, **other)
    return made + fill_value.to(made.dtype)


def full_like(input: Tensor, fill_value: Any, **options: Any) -> Tensor:
    """Compute `torch.full_like`."""
    made = torch.zeros_like(input, **options)
    return made + fill_value.to(made.dtype)


def new_full(input: Tensor, size: Any, fill_value: Any, **options: Any) -> Tensor:
    """Compute `Tensor.new_full`."""
    made = input.new_zeros(size, **options)
    return made + fill_value.to(made.dtype)


def trapezoid(y: Tensor, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """Compute `torch.trapezoid`."""
    return torch.trapezoid(y, dim=dim) * dx


def cumulative_trapezoid(y: Tensor, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """Compute `torch.cumulative_trapezoid`."""
    return torch.cumulative_trapezoid(y, dim=dim) * dx


def var(input: Tensor, dim: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Tensor:
    """Compute `torch.var`: Σ (xᵢ − mean)² / (n − correction)."""
    spread = torch.var(input, dim, correction=0, keepdim=keepdim)
    count = input.numel() / max(spread.numel(), 1)
    return spread * count / (count - correction).clamp(min=0)


def std(input: Tensor, dim: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Tensor:
    """Compute `torch.std`."""
    return torch.sqrt(var(input, dim, correction=correction, keepdim=keepdim))


def _times(x: Any, factor: Any, like: Any) -> Any:
    """Return x · factor in the dtype of the operands; a factor of exactly 1 leaves x as it is."""
    if not isinstance(factor, Tensor):
        return x if factor == 1 else x * factor
    dtype = x.dtype if isinstance(x, Tensor) else like.dtype
    return x * factor.to(dtype)
