"""Gamma draws (Marsaglia and Tsang 2000, "A simple method for generating gamma variables", section 2), and Dirichlet.

The method accepts a candidate with probability at least 0.95. A loop until one is accepted cannot be compiled or
batched. So a fixed number is drawn, and the probability that none is accepted is below 2**-52.
"""

from typing import Any

import torch
from torch import Tensor

from torchpure._torch import standard_gamma_grad
from torchpure._types import Key

from ._draws import Shape, compute_dtype, normal, unit_interval
from ._keys import check_key, split

_CANDIDATES = 12


def gamma(key: Key, concentration: float | Tensor, shape: Shape | None = None) -> Tensor:
    """Draw from the gamma distribution with rate 1; the shape is by default that of the concentration.

    Gradients flow to the concentration (Figurnov et al. 2018, arXiv:1805.08498, equation 5). As in torch and JAX, the
    derivative of a draw is taken at a fixed quantile, so the mean of the gradients is the derivative of the mean.

    Raises:
        TypeError: `key` is not a key.
        ValueError: the concentration is a number that is not positive.

    >>> from torchpure import random
    >>> bool(random.gamma(random.key(0), torch.full((1000,), 3.0)).mean().round() == 3)
    True
    """
    if not isinstance(concentration, Tensor) and not concentration > 0:
        raise ValueError(f"gamma: the concentration must be greater than 0, got {concentration}")
    check_key(key, "gamma")
    given = torch.as_tensor(concentration, device=key.device)
    shape = tuple(given.shape) if shape is None else tuple(shape)
    dtype = given.dtype if given.dtype.is_floating_point else torch.float32
    expanded = given.to(compute_dtype(dtype)).expand(shape)
    return _ReparametrisedGamma.apply(expanded, _draw_gamma(key, expanded.detach(), shape)).to(dtype)


def dirichlet(key: Key, concentration: Tensor, shape: Shape = ()) -> Tensor:
    """Draw points of the simplex, shape (*shape, …, n) for a concentration of shape (…, n).

    Raises:
        TypeError: `key` is not a key.

    >>> from torchpure import random
    >>> random.dirichlet(random.key(0), torch.ones(3)).sum().round()
    tensor(1.)
    """
    drawn = gamma(key, concentration, (*shape, *concentration.shape))
    # if all draws underflow to zero, the sum would be zero
    drawn = drawn.clamp(min=torch.finfo(drawn.dtype).tiny)
    return drawn / drawn.sum(-1, keepdim=True)


def _draw_gamma(key: Key, concentration: Tensor, shape: tuple[int, ...]) -> Tensor:
    k_normal, k_accept, k_boost = split(key, 3)
    small = concentration < 1
    d = torch.where(small, concentration + 1, concentration) - 1 / 3
    dtype = concentration.dtype
    x = normal(k_normal, (_CANDIDATES, *shape), dtype=dtype)
    u = unit_interval("gamma", k_accept, (_CANDIDATES, *shape), dtype)
    v = (1 + x / torch.sqrt(9 * d)) ** 3
    accepted = (v > 0) & (torch.log(u) < 0.5 * x**2 + d - d * v + d * torch.log(v.clamp(min=1e-30)))
    first = accepted.to(torch.int8).argmax(0, keepdim=True)
    drawn = d * v.gather(0, first).squeeze(0)
    boost = (
        torch.log1p(-unit_interval("gamma", k_boost, shape, dtype)) / concentration
    )  # log u / a; its exponential may underflow
    return torch.where(small, drawn * boost.exp(), drawn)


class _ReparametrisedGamma(torch.autograd.Function):
    """Give a draw its derivative with respect to the concentration, from the distribution function."""

    generate_vmap_rule = True

    @staticmethod
    def forward(concentration: Tensor, drawn: Tensor) -> Tensor:
        return drawn.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        concentration, drawn = ctx.saved_tensors
        return grads[0] * standard_gamma_grad(concentration, drawn), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        concentration, drawn = ctx.saved_tensors
        return tangents[0] * standard_gamma_grad(concentration, drawn)
