"""Torch's samplers with random numbers from keys: `torch.rand`, `Tensor.uniform_`, `nn.init` and similar functions.

Each function replaces the torch function of the same name and takes the same arguments after `next_key`, a function
that returns a new key at each call. The numbers come from `torchpure.random`, on the device of the result.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchpure import random
from torchpure._torch import calculate_fan_in_and_fan_out, sample_dirichlet
from torchpure._torch import standard_gamma as torch_standard_gamma

from ._keyed_layers import NextKey


def sized(values: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the keyed version of `torch.rand` or `torch.randn`: sizes as several arguments or as one."""

    def keyed(next_key: NextKey, *sizes: Any, size: Any = None, **options: Any) -> Tensor:
        shape = sizes if size is None else (size,)
        flat = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return _new(next_key, values, tuple(flat), **options)

    return keyed


def like(values: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the keyed version of `torch.rand_like` or `torch.randn_like`."""

    def keyed(next_key: NextKey, input: Tensor, **options: Any) -> Tensor:
        return _new(next_key, values, tuple(input.shape), **_options_like(input, options))

    return keyed


def randint(next_key: NextKey, *args: Any, **options: Any) -> Tensor:
    """Draw integers, as `torch.randint(low=0, high, size)`."""
    args = (*args, options.pop("size")) if "size" in options else args
    low, high = options.pop("low", 0), options.pop("high", None)
    *bounds, size = args
    if high is None:
        low, high = (low, bounds[0]) if len(bounds) == 1 else bounds
    elif bounds:
        low = bounds[0]
    return _integers(next_key, low, high, tuple(size), **options)


def randint_like(
    next_key: NextKey, input: Tensor, *bounds: int, low: int = 0, high: int | None = None, **options: Any
) -> Tensor:
    """Draw integers, as `torch.randint_like(input, low=0, high)`."""
    if high is None:
        low, high = (low, bounds[0]) if len(bounds) == 1 else bounds
    return _integers(next_key, low, high, tuple(input.shape), **_options_like(input, options))


def randperm(next_key: NextKey, n: int, **options: Any) -> Tensor:
    """Draw a permutation, as `torch.randperm`."""
    options.setdefault("dtype", torch.int64)
    return _new(next_key, lambda key, shape, dtype: random.permutation(key, shape[0]).to(dtype), (n,), **options)


def normal(
    next_key: NextKey, mean: Any, std: Any = 1.0, size: Any = None, *, dtype: torch.dtype | None = None, **options: Any
) -> Tensor:
    """Draw from normal distributions, as `torch.normal`: `mean` and `std` broadcast and get no gradient."""
    tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
    shape = tuple(torch.broadcast_shapes(*[value.shape for value in tensors])) if size is None else tuple(size)
    if tensors:
        options.setdefault("device", tensors[0].device)
        dtype = dtype or torch.result_type(tensors[0], tensors[-1])
    mean, std = (value.detach() if isinstance(value, Tensor) else value for value in (mean, std))
    return _new(next_key, _standard_normal, shape, dtype=dtype, **options) * std + mean


def bernoulli(next_key: NextKey, input: Tensor, p: float | None = None) -> Tensor:
    """Draw ones with the given probabilities, as `torch.bernoulli`."""
    probability = input if p is None else torch.full_like(input, p, dtype=torch.get_default_dtype())
    return random.bernoulli(next_key().to(input.device), probability, tuple(input.shape)).to(input.dtype)


def multinomial(next_key: NextKey, input: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
    """Draw indices in proportion to their weights, as `torch.multinomial`."""
    return random.multinomial(next_key().to(input.device), input, num_samples, replacement)


def poisson(next_key: NextKey, input: Tensor) -> Tensor:
    """Draw counts, as `torch.poisson`."""
    return random.poisson(next_key().to(input.device), input).to(input.dtype)


def standard_gamma(next_key: NextKey, input: Tensor) -> Tensor:
    """Draw from gamma distributions of rate one, as `torch.distributions` does."""
    return random.gamma(next_key().to(input.device), input)


def dirichlet(next_key: NextKey, input: Tensor) -> Tensor:
    """Draw points of the simplex, as `torch.distributions` does."""
    return random.dirichlet(next_key().to(input.device), input)


def uniform_(next_key: NextKey, tensor: Tensor, a: float = 0.0, b: float = 1.0, **bounds: float) -> Tensor:
    """Fill, as `Tensor.uniform_(from=0, to=1)`."""
    low, high = bounds.get("from", a), bounds.get("to", b)
    return _fill(
        next_key, tensor, lambda key, shape, dtype: random.uniform(key, shape, low=low, high=high, dtype=dtype)
    )


def normal_(next_key: NextKey, tensor: Tensor, mean: Any = 0.0, std: Any = 1.0) -> Tensor:
    """Fill, as `Tensor.normal_`; real and imaginary part each have half the variance."""
    part = std / math.sqrt(2) if tensor.is_complex() else std
    filled = _fill(next_key, tensor, lambda key, shape, dtype: random.normal(key, shape, std=part, dtype=dtype))
    return filled.add_(mean) if isinstance(mean, Tensor) or mean else filled


def bernoulli_(next_key: NextKey, tensor: Tensor, p: Any = 0.5) -> Tensor:
    """Fill, as `Tensor.bernoulli_`."""
    return _copy_into(tensor, random.bernoulli(next_key().to(tensor.device), p, tuple(tensor.shape)))


def exponential_(next_key: NextKey, tensor: Tensor, lambd: float = 1.0) -> Tensor:
    """Fill, as `Tensor.exponential_`; never with zero, because users often take the logarithm."""
    smallest = torch.finfo(tensor.dtype).tiny

    def values(key: Any, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return random.exponential(key, shape, rate=lambd, dtype=dtype).clamp(min=smallest)

    return _fill(next_key, tensor, values)


def cauchy_(next_key: NextKey, tensor: Tensor, median: float = 0.0, sigma: float = 1.0) -> Tensor:
    """Fill, as `Tensor.cauchy_`."""
    return _fill(next_key, tensor, random.cauchy).mul_(sigma).add_(median)


def geometric_(next_key: NextKey, tensor: Tensor, p: float) -> Tensor:
    """Fill with numbers of trials, as `Tensor.geometric_`."""
    return _copy_into(tensor, random.geometric(next_key().to(tensor.device), p, tuple(tensor.shape)))


def log_normal_(next_key: NextKey, tensor: Tensor, mean: float = 1.0, std: float = 2.0) -> Tensor:
    """Fill, as `Tensor.log_normal_`."""
    return normal_(next_key, tensor, mean, std).exp_()


def random_(next_key: NextKey, tensor: Tensor, *bounds: int, **named: int | None) -> Tensor:
    """Fill with integers, as `Tensor.random_(from=0, to)`: by default all integers that the dtype holds exactly."""
    low, high = (0, *bounds) if len(bounds) == 1 else bounds or (named.get("from") or 0, named.get("to"))
    high = _integer_limit(tensor.dtype) if high is None else high
    return _copy_into(tensor, random.randint(next_key().to(tensor.device), tuple(tensor.shape), int(low or 0), high))


def init_uniform_(next_key: NextKey, tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill, as `nn.init.uniform_`."""
    with torch.no_grad():
        return uniform_(next_key, tensor, a, b)


def init_normal_(next_key: NextKey, tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill, as `nn.init.normal_`."""
    with torch.no_grad():
        return normal_(next_key, tensor, mean, std)


def kaiming_uniform_(
    next_key: NextKey, tensor: Tensor, a: float = 0.0, mode: Any = "fan_in", nonlinearity: Any = "leaky_relu"
) -> Tensor:
    """Fill, as `nn.init.kaiming_uniform_` (He et al. 2015, arXiv:1502.01852, equation 14)."""
    if not tensor.numel():
        return tensor
    fan_in, fan_out = calculate_fan_in_and_fan_out(tensor)
    fan = fan_in if mode == "fan_in" else fan_out
    bound = nn.init.calculate_gain(nonlinearity, a) * math.sqrt(3.0 / fan)
    return init_uniform_(next_key, tensor, -bound, bound)


def _standard_normal(key: Any, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    if not dtype.is_complex:
        return random.normal(key, shape, dtype=dtype)
    return torch.view_as_complex(random.normal(key, (*shape, 2), std=math.sqrt(0.5), dtype=dtype.to_real()))


def _uniform(key: Any, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    if not dtype.is_complex:
        return random.uniform(key, shape, dtype=dtype)
    return torch.view_as_complex(random.uniform(key, (*shape, 2), dtype=dtype.to_real()))


def _new(
    next_key: NextKey,
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
    drawn = values(next_key().to(device), shape, dtype=dtype)
    return drawn.requires_grad_() if requires_grad else drawn


def _options_like(input: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": input.dtype, "device": input.device} | {k: v for k, v in options.items() if v is not None}


def _integers(next_key: NextKey, low: Any, high: Any, shape: tuple[int, ...], **options: Any) -> Tensor:
    options.setdefault("dtype", torch.int64)

    def values(key: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return random.randint(key, shape, int(low), int(high)).to(dtype)

    return _new(next_key, values, shape, **options)


def _fill(next_key: NextKey, tensor: Tensor, values: Callable[..., Tensor]) -> Tensor:
    if tensor.is_meta:
        return tensor
    key = next_key().to(tensor.device)
    if not tensor.is_complex():
        return _copy_into(tensor, values(key, tuple(tensor.shape), dtype=tensor.dtype))
    parts = values(key, (*tensor.shape, 2), dtype=tensor.dtype.to_real())
    return tensor.copy_(torch.view_as_complex(parts))


def _copy_into(tensor: Tensor, values: Tensor) -> Tensor:
    return tensor.copy_(values)


def _integer_limit(dtype: torch.dtype) -> int:
    if dtype.is_floating_point:
        return round(2 / torch.finfo(dtype).eps) + 1
    return 2 if dtype == torch.bool else min(torch.iinfo(dtype).max, 2**63 - 2) + 1


KEYED_SAMPLERS: dict[Any, Callable[..., Any]] = {
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
