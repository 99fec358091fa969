"""Function modes that answer the draws of unmodified modules from a key, or refuse them.

A mode sees every call of torch that Python makes in its thread. It answers the n-th draw from `fold_in(key, n)`. So
the same key gives the same numbers under every transform, and each member of a batch of keys gets its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from torchpure import random
from torchpure._types import Key
from torchpure.transforms.context import resumable
from torchpure.transforms.overrides import IN_TRANSFORM, in_transform

from . import _keyed_layers as layers
from ._keyed_samplers import KEYED_SAMPLERS
from ._per_member import per_member
from ._which_draw import draws


class DrawError(Exception):
    """Carry the name of the call that drew."""


class _DrawMode(TorchFunctionMode):
    """See every call of torch; inside a transform, use the overrides for operations that transforms get wrong.

    If `flag` is given (a tensor that every active vmap batches), each member gets its own copy of created tensors,
    because torch cannot fill a shared tensor in place.
    """

    def __init__(self, flag: Tensor | None = None) -> None:
        super().__init__()
        self.flag = flag
        self.buffers: list[Tensor] = []

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that a later run needs."""
        return () if self.flag is None else (self.flag,)

    def set_buffers(self, _: Sequence[Tensor]) -> None:
        """Do nothing: a mode has no buffers."""

    def snapshot(self) -> "_DrawMode":
        """Return a mode with the state of this one."""
        return type(self)(*self.tensors)

    @contextmanager
    def resumed(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Activate the mode again, with these tensors."""
        again = type(self)(*tensors)
        with again, resumable(again):
            yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is None and self.should_answer(func, args, kwargs):
            return self.answer(func, args, kwargs)
        if func in _UNDISPATCHED:
            with self:
                return _UNDISPATCHED[func](*args, **kwargs)
        if func in IN_TRANSFORM and in_transform():
            return IN_TRANSFORM[func](*args, **kwargs)
        result = func(*args, **kwargs)
        return per_member(self.flag, result) if self.flag is not None and func in _CREATION_FUNCTIONS else result

    def should_answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        """Return whether `answer` replaces this call."""
        raise NotImplementedError

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return the result of a call."""
        raise DrawError(getattr(func, "__name__", str(func)))


class RefuseDraws(_DrawMode):
    """Raise at the first draw."""

    def should_answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        """Return whether a call draws."""
        return draws(func, args, kwargs)


class KeyedDraws(_DrawMode):
    """Answer every draw from a key; raise at a draw that has no keyed version."""

    def __init__(self, key: Key, flag: Tensor | None = None) -> None:
        super().__init__(flag)
        self.key, self.count = key, 0
        self._original: KeyedDraws | None = None  # of a snapshot: the mode that it was made of

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that a later run needs."""
        return (self.key, *super().tensors)

    def snapshot(self) -> "KeyedDraws":
        """Return a mode that draws what this one is going to draw."""
        copy = KeyedDraws(self.key, self.flag)
        copy.count, copy._original = self.count, self
        return copy

    @contextmanager
    def resumed(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Draw again from this place on; after the first run, the original mode goes on where it ended."""
        again = KeyedDraws(*tensors)
        again.count = self.count
        with again, resumable(again):
            yield
        if self._original is not None:
            self._original.count = max(self._original.count, again.count)

    def next_key(self) -> Key:
        """Return a new key."""
        self.count += 1
        return random.fold_in(self.key, self.count)

    def should_answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        """Return whether a call may draw."""
        return _keyed_version(func) is not None or (func not in _UNDISPATCHED and draws(func, args, kwargs))

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return the result of a call, with random numbers from a new key."""
        answer = _keyed_version(func)
        if answer is None:
            return super().answer(func, args, kwargs)
        if kwargs.get("out") is not None:
            raise DrawError(f"{func.__name__}(out=…)")
        options = {name: value for name, value in kwargs.items() if name not in ("generator", "out")}
        return answer(self.next_key, *args, **options)


def _keyed_version(func: Any) -> Callable[..., Any] | None:
    if func in _KEYED_VERSIONS:
        return _KEYED_VERSIONS[func]
    if is_dynamo_compiling() or type(func) is not FunctionType or (func.__module__ or "").startswith("torch."):
        return None
    return _INITIALISERS.get(func.__name__)  # a library's wrapper of a function of torch.nn.init


def _without_dispatch(func: Any) -> Callable[..., Any]:
    """Copy a Python function of torch without its own dispatch, so that the mode sees the calls inside it."""
    no_overrides = {name: lambda *_: False for name in func.__globals__ if name.startswith("has_torch_function")}
    space = {**func.__globals__, **no_overrides}
    function = FunctionType(func.__code__, space, func.__name__, func.__defaults__, func.__closure__)
    function.__kwdefaults__ = func.__kwdefaults__
    return function


_UNDISPATCHED = {func: _without_dispatch(func) for func in (F.gumbel_softmax, F.multi_head_attention_forward)}
_CREATION_FUNCTIONS = {
    torch.empty, torch.zeros, torch.ones, torch.full, torch.empty_like, torch.zeros_like, torch.ones_like,
    torch.full_like, Tensor.new_empty, Tensor.new_zeros, Tensor.new_ones, Tensor.new_full,
}  # fmt: skip


def _inplace(answer: Callable[..., Any]) -> Callable[..., Any]:
    return lambda next_key, *args, **kwargs: answer(next_key, *args, **kwargs, inplace=True)


_KEYED_VERSIONS: dict[Any, Callable[..., Any]] = KEYED_SAMPLERS | {
    F.dropout: layers.dropout,
    torch.dropout: layers.dropout,
    torch.dropout_: _inplace(layers.dropout),
    F.dropout1d: layers.channel_dropout(1),
    F.dropout2d: layers.channel_dropout(2),
    F.dropout3d: layers.channel_dropout(3),
    torch.feature_dropout: layers.feature_dropout,
    torch.feature_dropout_: _inplace(layers.feature_dropout),
    F.alpha_dropout: layers.alpha_dropout,
    torch.alpha_dropout: layers.alpha_dropout,
    torch.alpha_dropout_: _inplace(layers.alpha_dropout),
    F.feature_alpha_dropout: layers.feature_alpha_dropout,
    torch.feature_alpha_dropout: layers.feature_alpha_dropout,
    torch.feature_alpha_dropout_: _inplace(layers.feature_alpha_dropout),
    torch.native_dropout: layers.native_dropout,
    F.rrelu: layers.rrelu,
    torch.rrelu: layers.rrelu,
    torch.rrelu_: _inplace(layers.rrelu),
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
_INITIALISERS = {func.__name__: answer for func, answer in _KEYED_VERSIONS.items() if func in vars(nn.init).values()}
