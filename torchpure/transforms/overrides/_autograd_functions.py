"""An `autograd.Function` of the user's own under forward derivatives.

torch runs its forward rule without derivatives, so that a second one through it would silently be zero. Here the rule
runs with them on, and on tensors without the tangents that it is given by themselves.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import custom_function_call
from torchpure.transforms.calls import differentiable, primal
from torchpure.transforms.engine import functorch, kinds

from ._override import Override, Where


class _Context:
    """A context that gives values without tangents."""

    def __init__(self, ctx: Any) -> None:
        object.__setattr__(self, "_ctx", ctx)

    def __getattr__(self, name: str) -> Any:
        return _without_tangents(getattr(self._ctx, name))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._ctx, name, value)


def _without_tangents(value: Any) -> Any:
    if isinstance(value, Tensor):
        return primal(value)
    return type(value)(map(_without_tangents, value)) if type(value) in {tuple, list} else value


def _on_primals(rule: Callable[..., Any]) -> Callable[..., Any]:
    return differentiable(lambda ctx, *tangents: rule(_Context(ctx), *tangents))


def _followed(function: Any) -> Any:
    return type(function.__name__, (function,), {"jvp": staticmethod(_on_primals(function.jvp))})


_kept = lru_cache(maxsize=256)(_followed)


def _followed_forwards(args: Any, kwargs: Any) -> tuple[Any, Any]:
    function = args[0]
    if functorch.TransformType.Jvp not in kinds() or function.jvp is torch.autograd.Function.jvp:
        return args, kwargs
    if hasattr(function.jvp, "differentiable"):
        return args, kwargs
    ours = function.__module__.startswith("torchpure.")  # one that was made for this call holds its tensors
    return ((_followed if ours else _kept)(function), *args[1:]), kwargs


OVERRIDES = (Override([custom_function_call], Where.INTERCEPTED, _followed_forwards),)
