"""Random tensors of torch, answered from keys: `torch.rand` and its kin, `Tensor.uniform_` and its, `nn.init`.

Each function here stands for the torch function of that name and takes its arguments after `draw`, which gives a new
key each time that it is called. The numbers come from `torchpure.random`, on the device where they are wanted.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchpure import random
from torchpure._torch import calculate_fan_in_and_fan_out, sample_dirichlet
from torchpure._torch import standard_gamma as torch_standard_gamma

from ._keyed_layers import Draw


def sized(values: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `torch.rand` or `torch.randn` as an answer: sizes first, one by one or together."""

    def answer(draw: Draw, *sizes: Any, size: Any = None, **options: Any) -> Tensor:
        shape = sizes if size is None else (size,)
        flat = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return _new(draw, values, tuple(flat), **options)

    return answer


def like(values: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `torch.rand_like` or `torch.randn_like` as an answer."""

    def answer(draw: Draw, input: Tensor, **options: Any) -> Tensor:
        return _new(draw, values, tuple(input.shape), **_options_like(input, options))

    return answer


def randint(draw: Draw, *args: Any, **options: Any) -> Tensor:
    """Draw integers, as `torch.randint(low=0, high, size)`."""
    args = (*args, options.pop("size")) if "size" in options else args
    low, high = options.pop("low", 0), options.pop("high", None)
    *bounds, size = args
    if high is None:
        low, high = (low, bounds[0]) if len(bounds) == 1 else bounds
    elif bounds:
        low = bounds[0]
    return _integers(draw, low, high, tuple(size), **options)


def randint_like(draw: Draw, input: Tensor, *bounds: int, low: int = 0, high: int | None = None, **o: Any) -> Tensor:
    """Draw integers, as `torch.randint_like(input, low=0, high)`."""
    if high is None:
        low, high = (low, bounds[0]) if len(bounds) == 1 else bounds
    return _integers(draw, low, high, tuple(input.shape), **_options_like(input, o))


def randperm(draw: Draw, n: int, **options: Any) -> Tensor:
    """Draw an order, as `torch.randperm`."""
    options.setdefault("dtype", torch.int64)
    return _new(draw, lambda key, shape, dtype: random.permutation(key, shape[0]).to(dtype), (n,), **options)


def normal(
    draw: Draw, mean: Any, std: Any = 1.0, size: Any = None, *, dtype: torch.dtype | None = None, **options: Any
) -> Tensor:
    """Draw from normal distributions, as `torch.normal`: tensors broadcast, and no gradient flows to them."""
    tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
    shape = tuple(torch.broadcast_shapes(*[value.shape for value in tensors])) if size is None else tuple(size)
    if tensors:
        options.setdefault("device", tensors[0].device)
        dtype = dtype or torch.result_type(tensors[0], tensors[-1])
    mean, std = (value.detach() if isinstance(value, Tensor) else value for value in (mean, std))
    return _new(draw, _standard_normal, shape, dtype=dtype, **options) * std + mean


def bernoulli(draw: Draw, input: Tensor, p: float | None = None) -> Tensor:
    """Draw ones with the probabilities that are given, as `torch.bernoulli`."""
    chance = input if p is None else torch.full_like(input, p, dtype=torch.get_default_dtype())
    return random.bernoulli(draw().to(input.device), chance, tuple(input.shape)).to(input.dtype)


def multinomial(draw: Draw, input: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
    """Draw places in proportion to their weights, as `torch.multinomial`."""
    return random.multinomial(draw().to(input.device), input, num_samples, replacement)


def poisson(draw: Draw, input: Tensor) -> Tensor:
    """Draw counts, as `torch.poisson`."""
    return random.poisson(draw().to(input.device), input).to(input.dtype)


def standard_gamma(draw: Draw, input: Tensor) -> Tensor:
    """Draw from gamma distributions of rate one, as `torch.distributions` does."""
    return random.gamma(draw().to(input.device), input)


def dirichlet(draw: Draw, input: Tensor) -> Tensor:
    """Draw points of the simplex, as `torch.distributions` does."""
    return random.dirichlet(draw().to(input.device), input)


def uniform_(draw: Draw, tensor: Tensor, a: float = 0.0, b: float = 1.0, **bounds: float) -> Tensor:
    """Fill, as `Tensor.uniform_(from=0, to=1)`."""
    low, high = bounds.get("from", a), bounds.get("to", b)
    return _filled(draw, tensor, lambda key, shape, dtype: random.uniform(key, shape, low=low, high=high, dtype=dtype))


def normal_(draw: Draw, tensor: Tensor, mean: Any = 0.0, std: Any = 1.0) -> Tensor:
    """Fill, as `Tensor.normal_`; the two parts of a complex entry share the variance."""
    part = std / math.sqrt(2) if tensor.is_complex() else std
    filled = _filled(draw, tensor, lambda key, shape, dtype: random.normal(key, shape, std=part, dtype=dtype))
    return filled.add_(mean) if isinstance(mean, Tensor) or mean else filled


def bernoulli_(draw: Draw, tensor: Tensor, p: Any = 0.5) -> Tensor:
    """Fill, as `Tensor.bernoulli_`."""
    return _put(tensor, random.bernoulli(draw().to(tensor.device), p, tuple(tensor.shape)))


def exponential_(draw: Draw, tensor: Tensor, lambd: float = 1.0) -> Tensor:
    """Fill, as `Tensor.exponential_`: never with zero, whose logarithm is often taken."""
    least = torch.finfo(tensor.dtype).tiny

    def values(key: Any, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return random.exponential(key, shape, rate=lambd, dtype=dtype).clamp(min=least)

    return _filled(draw, tensor, values)


def cauchy_(draw: Draw, tensor: Tensor, median: float = 0.0, sigma: float = 1.0) -> Tensor:
    """Fill, as `Tensor.cauchy_`."""
    return _filled(draw, tensor, random.cauchy).mul_(sigma).add_(median)


def geometric_(draw: Draw, tensor: Tensor, p: float) -> Tensor:
    """Fill with numbers of trials, as `Tensor.geometric_`."""
    return _put(tensor, random.geometric(draw().to(tensor.device), p, tuple(tensor.shape)))


def log_normal_(draw: Draw, tensor: Tensor, mean: float = 1.0, std: float = 2.0) -> Tensor:
    """Fill, as `Tensor.log_normal_`."""
    return normal_(draw, tensor, mean, std).exp_()


def random_(draw: Draw, tensor: Tensor, *bounds: int, **named: int | None) -> Tensor:
    """Fill with integers, as `Tensor.random_(from=0, to)`: by default all that the dtype holds without a gap."""
    low, high = (0, *bounds) if len(bounds) == 1 else bounds or (named.get("from") or 0, named.get("to"))
    high = _first_gap(tensor.dtype) if high is None else high
    return _put(tensor, random.randint(draw().to(tensor.device), tuple(tensor.shape), int(low or 0), high))


def init_uniform_(draw: Draw, tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill, as `nn.init.uniform_`."""
    with torch.no_grad():
        return uniform_(draw, tensor, a, b)


def init_normal_(draw: Draw, tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill, as `nn.init.normal_`."""
    with torch.no_grad():
        return normal_(draw, tensor, mean, std)


def kaiming_uniform_(
    draw: Draw, tensor: Tensor, a: float = 0.0, mode: Any = "fan_in", nonlinearity: Any = "leaky_relu"
) -> Tensor:
    """Fill, as `nn.init.kaiming_uniform_` (He et al. 2015, arXiv:1502.01852, equation 14)."""
    if not tensor.numel():
        return tensor
    fan_in, fan_out = calculate_fan_in_and_fan_out(tensor)
    fan = fan_in if mode == "fan_in" else fan_out
    bound = nn.init.calculate_gain(nonlinearity, a) * math.sqrt(3.0 / fan)
    return init_uniform_(draw, tensor, -bound, bound)


def _standard_normal(key: Any, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    if not dtype.is_complex:
        return random.normal(key, shape, dtype=dtype)
    return torch.view_as_complex(random.normal(key, (*shape, 2), std=math.sqrt(0.5), dtype=dtype.to_real()))


def _uniform(key: Any, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    if not dtype.is_complex:
        return random.uniform(key, shape, dtype=dtype)
    return torch.view_as_complex(random.uniform(key, (*shape, 2), dtype=dtype.to_real()))


def _new(
    draw: Draw,
    values: Callable[..., Tensor],
    shape: tuple[int, ...],
    *,
    dtype: torch.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
    **ignored: Any,  # layout, pin_memory: they change no value
) -> Tensor:
    device = torch.get_default_device() if device is None else torch.device(device)
    dtype = dtype or torch.get_default_dtype()
    if device.type == "meta":
        return torch.empty(shape, dtype=dtype, device=device, requires_grad=requires_grad)
    drawn = values(draw().to(device), shape, dtype=dtype)
    return drawn.requires_grad_() if requires_grad else drawn


def _options_like(input: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": input.dtype, "device": input.device} | {k: v for k, v in options.items() if v is not None}


def _integers(draw: Draw, low: Any, high: Any, shape: tuple[int, ...], **options: Any) -> Tensor:
    options.setdefault("dtype", torch.int64)

    def values(key: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return random.randint(key, shape, int(low), int(high)).to(dtype)

    return _new(draw, values, shape, **options)


def _filled(draw: Draw, tensor: Tensor, values: Callable[..., Tensor]) -> Tensor:
    if tensor.is_meta:
        return tensor
    key = draw().to(tensor.device)
    if not tensor.is_complex():
        return _put(tensor, values(key, tuple(tensor.shape), dtype=tensor.dtype))
    parts = values(key, (*tensor.shape, 2), dtype=tensor.dtype.to_real())
    return tensor.copy_(torch.view_as_complex(parts))


def _put(tensor: Tensor, values: Tensor) -> Tensor:
    return tensor.copy_(values)


def _first_gap(dtype: torch.dtype) -> int:
    if dtype.is_floating_point:
        return round(2 / torch.finfo(dtype).eps) + 1
    return 2 if dtype == torch.bool else min(torch.iinfo(dtype).max, 2**63 - 2) + 1


RANDOM: dict[Any, Callable[..., Any]] = {
    torch.rand: sized(_uniform),
    torch.randn: sized(_standard_normal),
    torch.rand_like: like(_uniform),
    torch.randn_like: like(_standard_normal),
    torch.randint: randint,
    torch.randint_like: randint_like,
    torch.randperm: randperm,
    torch.normal: normal,
    torch.bernoulli: bernoulli,
    torch.multinomial: multinomial,
    torch.poisson: poisson,
    torch_standard_gamma: standard_gamma,
    sample_dirichlet: dirichlet,
    Tensor.bernoulli: bernoulli,
    Tensor.multinomial: multinomial,
    Tensor.uniform_: uniform_,
    Tensor.normal_: normal_,
    Tensor.bernoulli_: bernoulli_,
    Tensor.exponential_: exponential_,
    Tensor.cauchy_: cauchy_,
    Tensor.geometric_: geometric_,
    Tensor.log_normal_: log_normal_,
    Tensor.random_: random_,
    nn.init.uniform_: init_uniform_,
    nn.init.normal_: init_normal_,
    nn.init.kaiming_uniform_: kaiming_uniform_,
}
