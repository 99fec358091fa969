"""The entry of the native backend: generate C++, compile it, load the library, and call it."""

import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from torchpure._cpp import compiler_command
from torchpure._progress import stage
from torchpure.errors import CheckError, MeshError
from torchpure.jit.native.codegen import MAX_OWN_WORKSPACE, TranslationUnit, generate_cpp
from torchpure.jit.native.frontend import decompose_program
from torchpure.jit.native.ir import UnsupportedError, View, dense_strides
from torchpure.jit.native.lowering import (
    gemm_pointers,
    last_error,
    lower_to_torch_call,
    parallel_for_pointer,
    torch_table,
)

from ._signals import STOPPED, keep_raised, python_table, take_raised
from ._workspaces import workspace

Load = Callable[..., ctypes.CDLL]  # (source, compiler command, names) -> the library, with these functions
_HOOK_TYPE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p))


class NativeProgram:
    """A compiled program: a function of tensors. It changes none of them, except donated ones."""

    def __init__(self, lowered: TranslationUnit, library: ctypes.CDLL) -> None:
        self.source, self.reason, self.workspace = lowered.source, "", lowered.workspace
        self.overwritten = lowered.overwritten  # output -> the donated input whose memory it takes
        self._outputs, self._state = lowered.outputs, lowered.state
        self._new_outputs = [
            (_maker(o), lowered.overwritten.get(i)) for i, o in enumerate(lowered.outputs) if isinstance(o, View)
        ]
        self._has_effects = bool(self._new_outputs or self._state.callbacks or self._state.check_messages)
        self._run: Any = library.run
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, _HOOK_TYPE]
        self._run.restype = ctypes.c_int
        gemms = (gemm_pointers() or ()) if self._state.uses_blas else ()
        table = [ctypes.addressof(torch_table())] if self._state.calls_torch else []
        table += [ctypes.addressof(python_table())] if self._state.polls else []
        pointers = [*(leaf.data_ptr() for leaf in self._state.constants), *gemms, *table]
        self._on_one_thread = (ctypes.c_void_p * (len(pointers) + 1))(*pointers, 0)
        self._constants = self._on_one_thread
        if self._state.shares_work:
            self._constants = (ctypes.c_void_p * (len(pointers) + 1))(*pointers, parallel_for_pointer())

    def __call__(self, *tensors: Tensor) -> list[Any]:
        """Run the program."""
        made = [new() if at is None else tensors[at] for new, at in self._new_outputs]
        if self._has_effects:
            self.run_into(tensors, made)
        rest = iter(made)
        return [tensors[o] if isinstance(o, int) else next(rest) if isinstance(o, View) else o for o in self._outputs]

    def run_into(self, tensors: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        """Run the program, and write its outputs into the tensors `made`.

        Raises:
            CheckError: a check of the program does not hold.
            IndexError: an index is out of range.
            ZeroDivisionError: an integer is divided by zero.
            MemoryError: there is no memory for temporaries.
            KeyboardInterrupt: Ctrl-C, in a loop; or what another handler of signals raised.
        """
        if self.workspace <= MAX_OWN_WORKSPACE:
            self._run_with(tensors, made)
            return
        with workspace(self.workspace) as block:
            self._run_with(tensors, [*made, block])

    def _run_with(self, tensors: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        inputs = _pointer_array(len(tensors))(*map(_data_ptr, tensors))
        outputs = _pointer_array(len(made))(*map(_data_ptr, made))
        raised: list[BaseException] = []
        hook = (
            _HOOK_TYPE(lambda number, given: self._call_python(raised, number, given))
            if self._state.callbacks
            else _SIGNAL_HOOK
        )
        shares = self._state.shares_work and not getattr(_THREAD, "alone", False)
        code = self._run(inputs, outputs, self._constants if shares else self._on_one_thread, hook)
        if code:
            if raised:
                raise raised[0]
            if code == STOPPED:
                raise take_raised()
            if code < 0:
                raise _error_for(code)
            raise CheckError(self._state.check_messages[code - 1])

    def _call_python(self, raised: list[BaseException], number: int, given: Any) -> int:
        if number < 0:
            return keep_raised(number, given)
        fn, views = self._state.callbacks[number]
        try:
            fn(*[_copy_out(pointer, view) for pointer, view in zip(given[: len(views)], views, strict=True)])
        except BaseException as error:
            raised.append(error)
            return 1
        return 0


_data_ptr = Tensor.data_ptr
_SIGNAL_HOOK = _HOOK_TYPE(keep_raised)
_THREAD = threading.local()


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Run native programs on the calling thread alone: other threads run others at the same time."""
    before = getattr(_THREAD, "alone", False)
    _THREAD.alone = True
    try:
        yield
    finally:
        _THREAD.alone = before


def is_on_one_thread() -> bool:
    """Return whether native programs of this thread run on it alone."""
    return getattr(_THREAD, "alone", False)


_ERRORS: dict[int, tuple[type[Exception], str]] = {
    -2: (IndexError, "an index is out of range in a compiled program; call the function without jit to see where"),
    -3: (MemoryError, "there is no memory for the temporaries of a compiled program"),
    -4: (ZeroDivisionError, "an integer is divided by zero in a compiled program"),
    -6: (RuntimeError, "an operation of torch returned another shape or dtype than during tracing"),
}


@lru_cache(maxsize=256)
def _pointer_array(count: int) -> Any:
    return ctypes.c_void_p * max(count, 1)


def _maker(output: View) -> Callable[[], Tensor]:
    """Return a function that makes a tensor for an output.

    For row-major memory it is `empty_like` for a tensor in the memory of one number: half the time of `empty`.
    """
    if output.strides != dense_strides(output.shape) or 0 in output.shape:
        return partial(torch.empty_strided, output.shape, output.strides, dtype=output.dtype)
    return partial(torch.empty_like, torch.empty((), dtype=output.dtype).expand(output.shape))


def _error_for(code: int) -> Exception:
    """Return the exception for a return code of the program. Code -5 is an error of torch."""
    text = last_error() if code == -5 else ""
    if text.startswith(("linalg.", "torch.linalg.")):
        return torch.linalg.LinAlgError(text)
    if text.startswith("MeshError: "):  # a collective calls Python, which appends where it was
        return MeshError(text.removeprefix("MeshError: ").partition("\n")[0])
    kind, what = _ERRORS.get(code, (RuntimeError, f"an operation of torch: {text}"))
    return kind(f"jit: {what}")


def _copy_out(pointer: int, view: View) -> Tensor:
    """Copy the memory behind a pointer into a new tensor."""
    size = sum((n - 1) * abs(s) for n, s in zip(view.shape, view.strides, strict=True)) + 1
    if 0 in view.shape:
        return torch.empty(view.shape, dtype=view.dtype)
    lowest = sum(min((n - 1) * s, 0) for n, s in zip(view.shape, view.strides, strict=True))
    raw = (ctypes.c_char * (size * view.dtype.itemsize)).from_address(pointer + lowest * view.dtype.itemsize)
    return torch.frombuffer(bytearray(raw), dtype=view.dtype).as_strided(view.shape, view.strides, -lowest).clone()


def compile_cpp(
    module: GraphModule, tensors: Sequence[Tensor], load: Load, donated: Mapping[int, int] | None = None
) -> NativeProgram:
    """Compile a program for the CPU.

    `donated` maps an output to an input whose memory it may take.

    Raises:
        UnsupportedError: the generator does not support the program.
    """
    stage(f"writing C++ for {len(module.graph.nodes):,} operations")
    try:
        made = generate_cpp(module, tensors, donated)
    except UnsupportedError:  # its decomposition may be supported
        made = generate_cpp(decompose_program(module, tensors), tensors, donated, lower_to_torch_call, module)
    stage(f"the C++ compiler, {made.source.count(chr(10)):,} lines")
    return NativeProgram(made, load(made.source, compiler_command(), "run"))
