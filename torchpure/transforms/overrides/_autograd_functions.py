"""A user's `torch.autograd.Function` under forward derivatives.

torch runs the `jvp` rule with derivatives off, so a second derivative through it is silently zero. Here the rule runs
with derivatives on. Its context gives tensors without their tangents, because the rule gets the tangents as arguments.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import custom_function_call
from torchpure.transforms.calls import differentiable, primal
from torchpure.transforms.engine import functorch, level_kinds

from ._override import Override, Where


class _Context:
    """A `ctx` whose tensors have no tangents."""

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


def _differentiable(function: Any) -> Any:
    return type(function.__name__, (function,), {"jvp": staticmethod(_on_primals(function.jvp))})


_cached = lru_cache(maxsize=256)(_differentiable)


def _with_differentiable_jvp(args: Any, kwargs: Any) -> tuple[Any, Any]:
    function = args[0]
    if functorch.TransformType.Jvp not in level_kinds() or function.jvp is torch.autograd.Function.jvp:
        return args, kwargs
    if hasattr(function.jvp, "differentiable"):
        return args, kwargs
    ours = function.__module__.startswith("torchpure.")  # made for one call: a cache would keep its tensors
    return ((_differentiable if ours else _cached)(function), *args[1:]), kwargs


OVERRIDES = (Override([custom_function_call], Where.INTERCEPTED, _with_differentiable_jvp),)
