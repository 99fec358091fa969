"""`jit`: compile a function once for each input signature."""

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from torchpure import tree
from torchpure._collector import gc_paused
from torchpure._compile_lock import compile_lock
from torchpure._dtensors import is_dtensor
from torchpure._progress import progress
from torchpure._torch import TensorGuards, is_any_autocast_enabled
from torchpure._types import P
from torchpure.errors import TransformError
from torchpure.jit.backends import CompilerError
from torchpure.transforms import Mapping, ShapeDtype
from torchpure.transforms.calls import check_callable, hint_keywords
from torchpure.transforms.engine import describe_function
from torchpure.transforms.overrides import as_member, only_overrides, paused_overrides

from ._argnums import ArgumentSet, ArgumentSpec, check_hashable, has_plain_memory
from ._cache_key import CallArguments
from ._donation import Donated
from ._executable import EagerFallback, Executable, compile_native_or_measure, compile_trace, warn_uncompiled
from ._lowered import Lowered, lowered_from_trace
from ._trace import Trace, trace
from ._vmapped import ChunkedVmap
from ._vmapped_chunks import CHUNK_MEMORY

_autocasts: Any = is_any_autocast_enabled
_requires_grad = attrgetter("requires_grad")
Out = TypeVar("Out", covariant=True)
_MANY_PROGRAMS = 32  # programs of one function: from here on, warn that a changing number should be a tensor


class Jitted(Protocol[P, Out]):
    """A compiled function: a call runs it, `lower` shows it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Out:
        """Run the program for these arguments."""
        ...

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """Trace and compile for these arguments, or for `ShapeDtype` in the places of tensors; show the program."""
        ...


@hint_keywords(
    static_argnums="write static",
    static_argnames="write static",
    donate_argnums="write donate",
    donate_argnames="write donate",
    fullgraph="leave it out: a program is always one graph",
    dynamic="leave it out: each shape has a program of its own",
    backend="leave it out: the program decides",
    mode="leave it out: there is one way to compile",
    inline="leave it out: under another transform the function is inlined",
)
def jit(fn: Callable[P, Out], *, static: ArgumentSpec = (), donate: ArgumentSpec = ()) -> Jitted[P, Out]:
    """Return a function that computes what `fn` computes, as one compiled program.

    `fn` is traced once per input signature: the structure of its arguments; the shapes, dtypes, devices and strides of
    their tensors; and the values of everything else. "Everything else" is Python numbers and strings, and the arguments
    that `static` names by position or by name. Python code, such as `print`, runs only while tracing.

    `fn` itself runs under transforms and tracers, where an input or a captured tensor requires grad, and where an
    argument is a DTensor. If a captured tensor is changed in place, the change is seen. If a captured name is bound to
    another tensor, it is not seen.

    `donate` names arguments whose memory the results may take. Using a donated tensor afterwards is an error.

    Law: `jit(fn)(*args) == fn(*args)`, up to rounding.

    Raises:
        TransformError: `static` or `donate` names no argument of `fn`. A call raises it if `fn` needs the numbers of
            tensors, draws from the global generator, captures a DTensor, or gets an argument that cannot be compared.

    >>> step = jit(lambda x: x * 2 + 1)
    >>> step(torch.tensor([1.0, 2.0]))
    tensor([3., 5.])
    """
    mapping = getattr(fn, "mapping", None)
    by_members = isinstance(mapping, Mapping) and not static and not donate
    programs = _ProgramCache(mapping.at_once() if by_members else fn, static, donate)
    run = ChunkedVmap(mapping, programs, _ProgramCache(as_member(mapping.fn), (), ())) if by_members else programs

    @wraps(fn, updated=())
    def jitted(*args: Any, **kwargs: Any) -> Any:
        if not tree.unwatched() or not only_overrides() or _autocasts():
            return fn(*args, **kwargs)
        return run(args, kwargs)

    def lower(*args: Any, **kwargs: Any) -> Lowered:
        """Trace and compile for these arguments, and show the program. A `ShapeDtype` may stand for a tensor."""
        return programs.lower(args, kwargs)

    jitted.lower = lower  # pyrefly: ignore[missing-attribute] functions take attributes
    return cast("Jitted[P, Out]", jitted)


class _Entry(NamedTuple):
    """An executable, with the check that finds it for a call."""

    check: Callable[..., bool]  # compares types, dtypes, devices, sizes, strides and requires_grad
    requires_grad: bool  # an input requires grad
    executable: Executable | EagerFallback


class _ProgramCache:
    """The compiled programs of one function, by input signature."""

    def __init__(self, fn: Callable[..., Any], static: ArgumentSpec, donate: ArgumentSpec) -> None:
        check_callable("jit", fn)
        self._fn, self._function_name = fn, describe_function(fn)
        self._static, self._donate = ArgumentSet(fn, "static", static), ArgumentSet(fn, "donate", donate)
        self._static.check_disjoint(self._donate)
        self._entries: dict[Any, list[_Entry]] = {}
        self._executables: dict[Any, Executable | EagerFallback] = {}
        self._pending_trace: dict[Any, Trace] = {}  # at most one trace, from `peak_memory`, that is not compiled yet

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the program for these arguments. Compile it if it does not exist."""
        call = CallArguments(self._static, args, kwargs)
        try:
            entries = self._entries.get(call.key, ())
        except TypeError:
            check_hashable(self._fn, args, kwargs, self._static)
            raise
        for entry in entries:
            if entry.check(*call.tensors) and not entry.executable.stale():
                if torch.is_grad_enabled() and (entry.requires_grad or entry.executable.captures_require_grad()):
                    return self._fn(*args, **kwargs)
                return entry.executable.run(call.tensors)
        return self._first_call(call, args, kwargs)

    def peak_memory(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Return the bytes that the program for these arguments needs. Return None if it is native: then compile it."""
        call = CallArguments(self._static, args, kwargs)
        if any(map(_requires_grad, call.tensors)) or not all(map(has_plain_memory, call.tensors)):
            return 0
        with compile_lock, gc_paused(), progress(lambda: f"jit: compiling {self._function_name}", "tracing"):
            key, new_trace = call.input_signature(), trace(self._fn, call.arguments, call.tensors)
            try:
                result = compile_native_or_measure(self._function_name, new_trace, call.tensors, CHUNK_MEMORY)
            except CompilerError:
                return 0
            if isinstance(result, int):
                self._pending_trace = {key: new_trace}
                return result
            self._executables[key] = result
            return None

    def lower(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Lowered:
        """Compile for these arguments, and show the program."""
        call = CallArguments(self._static, *tree.map(_example_input, (args, kwargs)))
        if any(map(is_dtensor, call.tensors)):
            raise TransformError(
                f"jit: lower: {self._function_name} gets a DTensor, for which there is no program: the function itself "
                "runs. To compile the part of each process, write shard_map(jit(fn), ...)"
            )
        with compile_lock:
            return lowered_from_trace(trace(self._fn, call.arguments, call.tensors).module, call.tensors)

    def _first_call(self, call: CallArguments, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run with an input signature that no entry matches."""
        for leaf in call.tensors:
            if type(leaf) is Donated:
                leaf.clone()  # raises, and names the function that took the memory
        needs_grad = any(map(_requires_grad, call.tensors))
        if (needs_grad and torch.is_grad_enabled()) or not all(map(has_plain_memory, call.tensors)):
            return self._fn(*args, **kwargs)
        with compile_lock:
            executable = self._find_or_compile(call, args, kwargs)
            entries = self._entries.setdefault(call.key, [])
            entries[:] = [entry for entry in entries if not entry.executable.stale()]
            entries.insert(0, _Entry(_guard(call.tensors), needs_grad, executable))
        if torch.is_grad_enabled() and executable.captures_require_grad():
            return self._fn(*args, **kwargs)
        return executable.run(call.tensors)

    def _find_or_compile(
        self, call: CallArguments, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Executable | EagerFallback:
        key, tensors = call.input_signature(), call.tensors
        existing = self._executables.get(key)
        if existing is not None and not existing.stale():
            return existing
        donated = call.positions(self._donate, args, kwargs)
        self._warn_about_many_programs(call)
        try:
            with paused_overrides(), gc_paused(), progress(lambda: f"jit: compiling {self._function_name}", "tracing"):
                new_trace = self._pending_trace.pop(key, None)
                if new_trace is None or new_trace.captures.stale():
                    new_trace = trace(self._fn, call.arguments, tensors)
                executable: Executable | EagerFallback = compile_trace(self._function_name, new_trace, tensors, donated)
        except CompilerError as error:
            executable = EagerFallback(self._function_name, self._fn, call, donated)
            warn_uncompiled(error)
        self._executables[key] = executable
        return executable

    def _warn_about_many_programs(self, call: CallArguments) -> None:
        if len(self._entries) == _MANY_PROGRAMS and call.key not in self._entries:
            warnings.warn(
                f"jit: {self._function_name} has been compiled {_MANY_PROGRAMS} times because of other values or "
                "structures of its arguments: pass numbers that change as tensors",
                stacklevel=6,
            )


def _example_input(leaf: Any) -> Any:
    return torch.empty(leaf.shape, dtype=leaf.dtype, device=leaf.device) if isinstance(leaf, ShapeDtype) else leaf


def _guard(tensors: Sequence[Tensor]) -> Callable[..., bool]:
    """Return a function that compares tensors with these, in C++."""
    if not tensors:
        return lambda: True
    sizes, strides = (
        [list(size) for size in sizes] for sizes in zip(*((t.shape, t.stride()) for t in tensors), strict=True)
    )
    make: Any = TensorGuards
    guards = make(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)
    if guards.check(*tensors):
        return guards.check
    wanted = [_guarded_properties(leaf) for leaf in tensors]  # the guards fail if one tensor is passed twice
    return lambda *others: [_guarded_properties(leaf) for leaf in others] == wanted


def _guarded_properties(leaf: Tensor) -> tuple[Any, ...]:
    return (
        type(leaf), leaf.shape, leaf.stride(), leaf.dtype, leaf.device, leaf.requires_grad, leaf.is_inference(),
        has_plain_memory(leaf),
    )  # fmt: skip
