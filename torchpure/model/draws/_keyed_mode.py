"""Draws of unmodified modules, answered from a key or refused.

A mode sees every call of torch that Python makes in its thread. The n-th draw is answered from `fold_in(key, n)`, so
that the same key gives the same numbers whatever the transform, and members of a batch of keys their own.
"""

import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from torchpure import random
from torchpure._types import Key
from torchpure.errors import ImpureError
from torchpure.transforms.overrides import IN_TRANSFORM, in_transform

from . import _keyed_layers as layers
from ._keyed_samplers import RANDOM
from ._per_member import own
from ._which_draw import draws


class DrawError(Exception):
    """Carry the name of the call that drew."""


class _Pure(TorchFunctionMode):
    """Look at every call; inside a transform, put in the place of some what the transform can follow.

    With `flag`, a tensor that differs between the members of every vmap at work, what is created is each member's
    own: to fill in place what they share is an error in torch.
    """

    def __init__(self, flag: Tensor | None = None) -> None:
        super().__init__()
        self.flag = flag

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is None and self.answers(func, args, kwargs):
            return self.answer(func, args, kwargs)
        if func in _INNER:
            with self:
                return _INNER[func](*args, **kwargs)
        if func in IN_TRANSFORM and in_transform():
            return IN_TRANSFORM[func](*args, **kwargs)
        result = func(*args, **kwargs)
        return own(self.flag, result) if self.flag is not None and func in _CREATIONS else result

    def answers(self, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        """Tell whether this call is answered here."""
        raise NotImplementedError

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Answer a call."""
        raise DrawError(getattr(func, "__name__", str(func)))


class RefuseDraws(_Pure):
    """Raise at the first draw."""

    def answers(self, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        """Tell whether a call draws."""
        return draws(func, args, kwargs)


class KeyedDraws(_Pure):
    """Answer every draw from a key; raise at one that has no keyed form."""

    def __init__(self, key: Key, flag: Tensor | None = None) -> None:
        super().__init__(flag)
        self.key, self.count = key, 0

    def draw(self) -> Key:
        """Return a new key."""
        _refuse_recomputation()
        self.count += 1
        return random.fold_in(self.key, self.count)

    def answers(self, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        """Tell whether a call may draw."""
        return _answer_to(func) is not None or (func not in _INNER and draws(func, args, kwargs))

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Answer it from a new key."""
        answer = _answer_to(func)
        if answer is None:
            return super().answer(func, args, kwargs)
        if kwargs.get("out") is not None:
            raise DrawError(f"{func.__name__}(out=…)")
        named = {name: value for name, value in kwargs.items() if name not in ("generator", "out")}
        return answer(self.draw, *args, **named)


def _answer_to(func: Any) -> Callable[..., Any] | None:
    if func in _ANSWERS:
        return _ANSWERS[func]
    if is_dynamo_compiling() or type(func) is not FunctionType or func.__module__.startswith("torch."):
        return None
    return _INITIALISERS.get(func.__name__)  # a library's wrapper, which torch.nn.init then takes for its own


def _refuse_recomputation() -> None:
    """Refuse a draw inside torch's checkpoint, which repeats its function in the backward pass, where no key is.

    Raises:
        ImpureError: the draw is inside one.
    """
    frame = None if is_dynamo_compiling() else sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            raise ImpureError(
                "a draw inside torch.utils.checkpoint is made again in the backward pass, without the key: "
                "draw outside of it, or use the module without checkpointing"
            )
        frame = frame.f_back


def _looked_into(func: Any) -> Callable[..., Any]:
    """Copy a Python function of torch so that it no longer hands itself to the mode, but what it calls."""
    blind = {name: lambda *_: False for name in func.__globals__ if name.startswith("has_torch_function")}
    space = {**func.__globals__, **blind}
    inner = FunctionType(func.__code__, space, func.__name__, func.__defaults__, func.__closure__)
    inner.__kwdefaults__ = func.__kwdefaults__
    return inner


_INNER = {func: _looked_into(func) for func in (F.gumbel_softmax, F.multi_head_attention_forward)}
_CREATIONS = {
    torch.empty, torch.zeros, torch.ones, torch.full, torch.empty_like, torch.zeros_like, torch.ones_like,
    torch.full_like, Tensor.new_empty, Tensor.new_zeros, Tensor.new_ones, Tensor.new_full,
}  # fmt: skip


def _in_place(answer: Callable[..., Any]) -> Callable[..., Any]:
    return lambda draw, *args, **kwargs: answer(draw, *args, **kwargs, inplace=True)


_ANSWERS: dict[Any, Callable[..., Any]] = RANDOM | {
    F.dropout: layers.dropout,
    torch.dropout: layers.dropout,
    torch.dropout_: _in_place(layers.dropout),
    F.dropout1d: layers.channel_dropout(1),
    F.dropout2d: layers.channel_dropout(2),
    F.dropout3d: layers.channel_dropout(3),
    torch.feature_dropout: layers.feature_dropout,
    torch.feature_dropout_: _in_place(layers.feature_dropout),
    F.alpha_dropout: layers.alpha_dropout,
    torch.alpha_dropout: layers.alpha_dropout,
    torch.alpha_dropout_: _in_place(layers.alpha_dropout),
    F.feature_alpha_dropout: layers.feature_alpha_dropout,
    torch.feature_alpha_dropout: layers.feature_alpha_dropout,
    torch.feature_alpha_dropout_: _in_place(layers.feature_alpha_dropout),
    torch.native_dropout: layers.native_dropout,
    F.rrelu: layers.rrelu,
    torch.rrelu: layers.rrelu,
    torch.rrelu_: _in_place(layers.rrelu),
    F.scaled_dot_product_attention: layers.scaled_dot_product_attention,
    F.fractional_max_pool2d: layers.fractional_max_pool(F.fractional_max_pool2d, 2),
    F.fractional_max_pool3d: layers.fractional_max_pool(F.fractional_max_pool3d, 3),
    F.fractional_max_pool2d_with_indices: layers.fractional_max_pool(F.fractional_max_pool2d_with_indices, 2),
    F.fractional_max_pool3d_with_indices: layers.fractional_max_pool(F.fractional_max_pool3d_with_indices, 3),
    torch.lstm: layers.recurrent(torch.lstm),
    torch.gru: layers.recurrent(torch.gru),
    torch.rnn_tanh: layers.recurrent(torch.rnn_tanh),
    torch.rnn_relu: layers.recurrent(torch.rnn_relu),
}
_INITIALISERS = {func.__name__: answer for func, answer in _ANSWERS.items() if func in vars(nn.init).values()}
