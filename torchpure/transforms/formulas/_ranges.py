"""`linspace` and `logspace` between tensors, and normal numbers of a mean and a deviation in tensors."""

from typing import Any

import torch
from torch import Tensor


def linspace(start: Any, end: Any, steps: int, **options: Any) -> Tensor:
    """Compute `torch.linspace`: from each end up to the middle, as torch does."""
    if not _has_tensors(start, end):
        return torch.linspace(start, end, steps, **options)
    return _between(start, end, steps, **options)


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, **options: Any) -> Tensor:
    """Compute `torch.logspace`: powers of the base."""
    if not _has_tensors(start, end) or options.get("out") is not None:
        return torch.logspace(start, end, steps, base, **options)
    return torch.pow(base, _between(start, end, steps, **options))


def _has_tensors(start: Any, end: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.ndim == 0 for leaf in (start, end))


def _between(
    start: Any, end: Any, steps: int, *, out: Any = None, dtype: Any = None, device: Any = None, **other: Any
) -> Tensor:
    like = start if isinstance(start, Tensor) else end
    if out is not None or steps < 1 or like.is_complex() or not (dtype or torch.get_default_dtype()).is_floating_point:
        return torch.linspace(start, end, steps, out=out, dtype=dtype, device=device, **other)
    dtype = dtype or torch.get_default_dtype()
    start, end = (torch.as_tensor(leaf).to(dtype) for leaf in (start, end))
    position = torch.arange(steps, device=device or like.device, dtype=dtype)
    step = (end - start) / max(steps - 1, 1)
    return (
        torch.where(position < steps // 2, start + step * position, end - step * (steps - 1 - position))
        if (steps > 1)
        else start + step * position
    )


def normal(mean: Any, std: Any = 1.0, *, generator: Any = None, **other: Any) -> Tensor:
    """Compute `torch.normal`: mean + std · z with a draw z, which is a constant."""
    shape = torch.broadcast_shapes(*(leaf.shape for leaf in (mean, std) if isinstance(leaf, Tensor)))
    like = mean if isinstance(mean, Tensor) else std
    zeros = torch.zeros(shape, dtype=like.dtype, device=like.device)
    return mean + std * torch.normal(zeros, 1.0, generator=generator)
