"""Incomplete gamma functions and the Hurwitz zeta function, in their second argument (DLMF 8.8, 25.11)."""

from typing import Any

import torch
from torch import Tensor

from ._elementwise import Elementwise
from ._of_two import of_two
from ._powers import pow


def _density(a: Tensor, x: Tensor) -> Tensor:
    """Return xᵃ⁻¹ e⁻ˣ / Γ(a): a power near 0, where a logarithm is infinite, and an exponential elsewhere."""
    near = x < 1
    low = pow(torch.where(near, x, 0.5), a - 1) * torch.exp(-torch.where(near, x, 0.5) - torch.lgamma(a))
    high = torch.where(near, 1.0, x)
    return torch.where(near, low, torch.exp((a - 1) * torch.log(high) - high - torch.lgamma(a)))


_IGAMMA = Elementwise("igamma", torch.igamma, (None, _density))
_IGAMMAC = Elementwise("igammac", torch.igammac, (None, lambda a, x: -_density(a, x)))
_ZETA = Elementwise("zeta", torch.special.zeta, (None, lambda s, q: -s * zeta(s + 1, q)))


def igamma(input: Tensor, other: Tensor) -> Tensor:
    """Compute `torch.igamma`."""
    return of_two(_IGAMMA, input, other)


def igammac(input: Tensor, other: Tensor) -> Tensor:
    """Compute `torch.igammac`."""
    return of_two(_IGAMMAC, input, other)


def zeta(input: Any, other: Any) -> Tensor:
    """Compute `torch.special.zeta`."""
    return of_two(_ZETA, input, other)
