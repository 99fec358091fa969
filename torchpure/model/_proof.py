"""Proving, by the names in its code, that a module never draws.

Most modules cannot: their code names nothing that draws. For them no call needs to be watched. A name that is not
understood (a helper function, a method, a hook, a closure) leaves the module unproven, and then every call is
watched; so a mistake on this side costs time and never hides a draw.
"""

import builtins
import math
from collections.abc import Iterator
from types import CodeType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_DRAWING_NAMES = ("rand", "dropout", "bernoulli", "multinomial", "normal", "uniform", "poisson", "binomial", "cauchy")
_DRAWING_NAMES += ("exponential", "geometric", "gumbel", "fractional", "rrelu", "attention", "seed", "sample", "init")
_DRAWING_NAMES += ("lstm", "gru", "rnn", "generator", "rng")
_LIKE_DRAWS = ("rand_like", "randn_like", "randint_like")
_DRAWING_LAYERS = ("Dropout", "RReLU", "Fractional", "Attention", "Transformer", "RNN", "LSTM", "GRU")
_SPACES = (Tensor, torch, F, nn, math)


def never_draws(module: nn.Module) -> bool:
    """Tell whether no submodule can draw; False also when that is not known.

    >>> never_draws(nn.Sequential(nn.Linear(1, 1), nn.Tanh())), never_draws(nn.Dropout())
    (True, False)
    """
    return all(map(_known, module.modules()))


def names_like_draws(module: nn.Module) -> bool:
    """Tell whether a forward names `rand_like` or its kin, which torch.compile traces past every mode."""
    codes = [getattr(type(sub).forward, "__code__", None) for sub in module.modules()]
    return any(name in _LIKE_DRAWS for code in codes if code is not None for name in _names(code))


def _known(module: nn.Module) -> bool:
    kind = type(module)
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return False
    if kind.__call__ is not nn.Module.__call__ or kind.__getattr__ is not nn.Module.__getattr__:
        return False
    if kind.__module__.startswith("torch.nn.modules."):
        return not any(name in kind.__name__ for name in _DRAWING_LAYERS)
    code = getattr(kind.forward, "__code__", None)
    return (
        code is not None
        and not code.co_freevars
        and all(_harmless(name, module, kind.forward.__globals__) for name in _names(code))
    )


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _harmless(name: str, module: nn.Module, space: dict[str, Any]) -> bool:
    """Tell whether a name is the module's own value, a torch module, or something of torch that does not draw."""
    if name in module._modules or name in module._parameters or name in module._buffers:
        return name not in space
    if name in vars(type(module)) or any(word in name.lower() for word in _DRAWING_NAMES):
        return False
    if name in space:
        found = space[name]
        return isinstance(found, ModuleType) and found.__name__ in ("torch", "torch.nn", "torch.nn.functional", "math")
    own = vars(module).get(name, module)
    if isinstance(own, int | float | str | Tensor):
        return True
    return own is module and (hasattr(builtins, name) or any(hasattr(one, name) for one in _SPACES))
