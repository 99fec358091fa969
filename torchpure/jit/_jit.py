"""`jit`: a function, compiled once for each kind of arguments."""

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._collector import uncollected
from torchpure._torch import TensorGuards, is_any_autocast_enabled, len_torch_function_stack
from torchpure.jit.backends import CompilerError
from torchpure.transforms import Mapping, ShapeDtype
from torchpure.transforms.calls import check_callable
from torchpure.transforms.engine import describe_function

from ._argnums import Chosen, Names, check_hashable, ordinary
from ._cache_key import Call
from ._donation import Donated
from ._executable import Compiled, Uncompiled, compile_natively, compile_trace, warn_uncompiled
from ._lowered import Lowered, lowered
from ._trace import Trace, trace
from ._vmapped import Members

_function_modes: Any = len_torch_function_stack
_autocasts: Any = is_any_autocast_enabled
_requires_grad = attrgetter("requires_grad")
_MANY = 32  # programs of one function that differ in values alone: a sign that one should be a tensor


def jit(fn: Callable[..., Any], *, static: Names = (), donate: Names = ()) -> Callable[..., Any]:
    """Return a function that computes what `fn` does, as one compiled program.

    `fn` is traced once for each structure of its arguments, with the shapes, dtypes, devices and strides of their
    tensors, and the values of everything else: of Python numbers and strings, and of the arguments whose positions or
    names `static` holds. So Python code runs once for each, and what it prints is printed once.

    Under transforms and tracers, and where an input or a captured tensor requires grad, `fn` itself runs. A captured
    tensor that is changed in place is seen; a name that is bound to another tensor is not.

    `donate` holds arguments whose memory the results may take: using one of their tensors afterwards is an error.

    Law: `jit(fn)(*args) == fn(*args)`, up to rounding.

    Raises:
        TransformError: `static` or `donate` names no argument of `fn`; in a call: `fn` needs the numbers of tensors,
            draws from the global generator, or is given what cannot be compared.

    >>> step = jit(lambda x: x * 2 + 1)
    >>> step(torch.tensor([1.0, 2.0]))
    tensor([3., 5.])
    """
    calls = _Calls(fn, static, donate)
    mapping = getattr(fn, "mapping", None)
    apart = isinstance(mapping, Mapping) and not static and not donate
    run = Members(mapping, calls, _Calls(mapping.fn, (), ())) if apart else calls

    @wraps(fn, updated=())
    def jitted(*args: Any, **kwargs: Any) -> Any:
        if not tree.unwatched() or _function_modes() or _autocasts():
            return fn(*args, **kwargs)
        return run(args, kwargs)

    def lower(*args: Any, **kwargs: Any) -> Lowered:
        """Trace and compile for these arguments, or for `ShapeDtype` in the places of tensors; show the program."""
        return calls.lower(args, kwargs)

    jitted.lower = lower  # pyrefly: ignore[missing-attribute] functions take attributes
    return jitted


class _Entry(NamedTuple):
    """A kind of arguments that has been seen."""

    check: Callable[..., bool]  # of tensors: types, dtypes, devices, sizes, strides, whether they require grad
    asks: bool  # one of them requires grad
    compiled: Compiled | Uncompiled


class _Calls:
    """The programs of one function."""

    def __init__(self, fn: Callable[..., Any], static: Names, donate: Names) -> None:
        check_callable("jit", fn)
        self._fn, self._who = fn, describe_function(fn)
        self._static, self._donate = Chosen(fn, "static", static), Chosen(fn, "donate", donate)
        self._static.check_apart(self._donate)
        self._entries: dict[Any, list[_Entry]] = {}
        self._compiled: dict[Any, Compiled | Uncompiled] = {}
        self._traced: dict[Any, Trace] = {}  # one at most, which waits to be compiled
        self._lock = threading.RLock()

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the program for these arguments."""
        call = Call(self._static, args, kwargs)
        try:
            entries = self._entries.get(call.key, ())
        except TypeError:
            check_hashable(self._fn, args, kwargs, self._static)
            raise
        for entry in entries:
            if entry.check(*call.tensors) and not entry.compiled.stale():
                if torch.is_grad_enabled() and (entry.asks or entry.compiled.asks()):
                    return self._fn(*args, **kwargs)
                return entry.compiled.run(call.tensors)
        return self._first(call, args, kwargs)

    def memory(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Return the bytes that the program for these arguments needs; None for one of C++, which is compiled then."""
        call = Call(self._static, args, kwargs)
        if any(map(_requires_grad, call.tensors)) or not all(map(ordinary, call.tensors)):
            return 0
        with self._lock, uncollected():
            key, traced = call.kind(), trace(self._fn, call.arguments, call.tensors)
            try:
                found = compile_natively(self._who, traced, call.tensors)
            except CompilerError:
                return 0
            if isinstance(found, int):
                self._traced = {key: traced}
                return found
            self._compiled[key] = found
            return None

    def lower(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Lowered:
        """Compile for these arguments, and show the program."""
        call = Call(self._static, *tree.map(_example, (args, kwargs)))
        return lowered(trace(self._fn, call.arguments, call.tensors).module, call.tensors)

    def _first(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run with arguments of a kind that has not been seen."""
        for leaf in call.tensors:
            if type(leaf) is Donated:
                leaf.clone()  # refused, with the name of who has it
        asks = any(map(_requires_grad, call.tensors))
        if (asks and torch.is_grad_enabled()) or not all(map(ordinary, call.tensors)):
            return self._fn(*args, **kwargs)
        with self._lock:
            compiled = self._program(call, args, kwargs)
            entries = self._entries.setdefault(call.key, [])
            entries[:] = [entry for entry in entries if not entry.compiled.stale()]
            entries.insert(0, _Entry(_check(call.tensors), asks, compiled))
        if torch.is_grad_enabled() and compiled.asks():
            return self._fn(*args, **kwargs)
        return compiled.run(call.tensors)

    def _program(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Compiled | Uncompiled:
        key, tensors = call.kind(), call.tensors
        found = self._compiled.get(key)
        if found is not None and not found.stale():
            return found
        donated = call.places(self._donate, args, kwargs)
        self._warn_of_many(call)
        try:
            with uncollected():
                traced = self._traced.pop(key, None)
                if traced is None or traced.captures.stale():
                    traced = trace(self._fn, call.arguments, tensors)
                made: Compiled | Uncompiled = compile_trace(self._who, traced, tensors, donated)
        except CompilerError as error:
            made = Uncompiled(self._who, self._fn, call, donated)
            warn_uncompiled(error)
        self._compiled[key] = made
        return made

    def _warn_of_many(self, call: Call) -> None:
        if len(self._entries) == _MANY and call.key not in self._entries:
            warnings.warn(
                f"jit: {self._who} has been compiled {_MANY} times because of other values or structures of its "
                "arguments: pass numbers that change as tensors",
                stacklevel=6,
            )


def _example(leaf: Any) -> Any:
    return torch.empty(leaf.shape, dtype=leaf.dtype, device=leaf.device) if isinstance(leaf, ShapeDtype) else leaf


def _check(tensors: Sequence[Tensor]) -> Callable[..., bool]:
    """Return what compares tensors with these, in C++."""
    if not tensors:
        return lambda: True
    sizes, strides = (
        [list(size) for size in sizes] for sizes in zip(*((t.shape, t.stride()) for t in tensors), strict=True)
    )
    make: Any = TensorGuards
    guards = make(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)
    if guards.check(*tensors):
        return guards.check
    wanted = [_kind(leaf) for leaf in tensors]  # one tensor twice: the guards refuse it
    return lambda *others: [_kind(leaf) for leaf in others] == wanted


def _kind(leaf: Tensor) -> tuple[Any, ...]:
    return (
        type(leaf), leaf.shape, leaf.stride(), leaf.dtype, leaf.device, leaf.requires_grad, leaf.is_inference(),
        ordinary(leaf),
    )  # fmt: skip
