"""Fresh values for a module's parameters, drawn from a key.

Each submodule's own `reset_parameters` says how its values are distributed; here its random fills are answered from
a key, so that the global generator is neither read nor changed.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchpure import random
from torchpure._types import Key
from torchpure.errors import ImpureError

from ._guard import draws


def reset(module: nn.Module, key: Key) -> None:
    """Refill a private module's values, innermost submodules first, as its constructor did.

    Raises:
        ImpureError: a submodule has values of its own and does not say how to fill them, or draws in a way that has no
            keyed form.
    """
    for number, (path, sub) in enumerate(reversed(list(module.named_modules()))):
        refill = getattr(sub, "reset_parameters", None) or getattr(sub, "_reset_parameters", None)
        if refill is not None:
            with _KeyedFills(random.fold_in(key, number), path):
                refill()
        elif any(value is not None for value in sub._parameters.values()):
            raise ImpureError(
                f"init: `{path or '.'}` ({type(sub).__name__}) has parameters of its own and no reset_parameters(): "
                "give it one, or start from net.params"
            )


class _KeyedFills(TorchFunctionMode):
    def __init__(self, key: Key, path: str) -> None:
        super().__init__()
        self.key, self.path, self.count = key, path, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS:
            self.count += 1
            return _FILLS[func](random.fold_in(self.key, self.count), *args, **kwargs)
        if draws(func, args, kwargs):
            raise ImpureError(
                f"init: `{self.path}` fills with `{func.__name__}`, which has no keyed form: use uniform_ or normal_"
            )
        return func(*args, **kwargs)


def _fill(tensor: Tensor, values: Callable[..., Tensor], key: Key, **spread: float) -> Tensor:
    drawn = values(key, tensor.shape, dtype=tensor.real.dtype, **spread)
    return tensor.copy_(drawn.to(tensor.device))


def _uniform(
    key: Key, tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: None = None, **bounds: float
) -> Tensor:
    return _fill(tensor, random.uniform, key, low=bounds.get("from", a), high=bounds.get("to", b))


def _normal(key: Key, tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: None = None) -> Tensor:
    return _fill(tensor, random.normal, key, mean=mean, std=std)


def _kaiming_uniform(
    key: Key,
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: Any = "leaky_relu",
    generator: None = None,
) -> Tensor:
    """Fill as He et al. 2015 (arXiv:1502.01852, equation 14) say."""
    if not tensor.numel():
        return tensor
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(tensor)
    fan = fan_in if mode == "fan_in" else fan_out
    bound = nn.init.calculate_gain(nonlinearity, a) * math.sqrt(3.0 / fan)
    return _uniform(key, tensor, -bound, bound)


def _detached(fill: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def filled(key: Key, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        fill(key, tensor.detach(), *args, **kwargs)
        return tensor

    return filled


_FILLS: dict[Any, Callable[..., Tensor]] = {
    Tensor.uniform_: _detached(_uniform),
    Tensor.normal_: _detached(_normal),
    nn.init.uniform_: _detached(_uniform),
    nn.init.normal_: _detached(_normal),
    nn.init.kaiming_uniform_: _detached(_kaiming_uniform),
}
