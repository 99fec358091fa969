"""A whole program: lowered, fused, planned, written, compiled, loaded, called."""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from torchpure.errors import CheckError
from torchpure.jit.native.codegen import Lowered, command, lowered
from torchpure.jit.native.frontend import decomposed
from torchpure.jit.native.ir import UnsupportedError, View
from torchpure.jit.native.lowering import foreign, last_error, library_products, torch_table

Build = Callable[[str, Sequence[str]], Path]  # source and compiler command -> the library
_HOOK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p))


class Native:
    """A compiled program: a function of tensors that changes none of them."""

    def __init__(self, lowered: Lowered, library: Path) -> None:
        self.source = lowered.source
        self._outputs, self._program = lowered.outputs, lowered.program
        self._made = [(o.shape, o.dtype) for o in lowered.outputs if isinstance(o, View)]
        self._runs = bool(self._made or self._program.callbacks or self._program.messages)
        self._run: Any = ctypes.CDLL(str(library)).run
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, _HOOK]
        self._run.restype = ctypes.c_int
        functions = (library_products() or ()) if self._program.uses_library else ()
        table = [ctypes.addressof(torch_table())] if self._program.calls_torch else []
        pointers = [*(leaf.data_ptr() for leaf in self._program.constants), *functions, *table]
        self._constants = (ctypes.c_void_p * max(len(pointers), 1))(*pointers)

    def __call__(self, *tensors: Tensor) -> list[Any]:
        """Run the program."""
        made = [torch.empty(shape, dtype=dtype) for shape, dtype in self._made]
        if self._runs:
            self.fill(tensors, made)
        rest = iter(made)
        return [tensors[o] if isinstance(o, int) else next(rest) if isinstance(o, View) else o for o in self._outputs]

    def fill(self, tensors: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        """Run the program into tensors for its outputs.

        Raises:
            CheckError: a check of the program does not hold.
            IndexError: an index is out of range.
            ZeroDivisionError: an integer is divided by zero.
            MemoryError: there is no memory for temporaries.
        """
        inputs = (ctypes.c_void_p * max(len(tensors), 1))(*[leaf.data_ptr() for leaf in tensors])
        outputs = (ctypes.c_void_p * max(len(made), 1))(*[leaf.data_ptr() for leaf in made])
        raised: list[BaseException] = []
        hook = _HOOK(lambda number, given: self._called(raised, number, given)) if self._program.callbacks else _NOTHING
        code = self._run(inputs, outputs, self._constants, hook)
        if code:
            if raised:
                raise raised[0]
            if code < 0:
                raise _error(code)
            raise CheckError(self._program.messages[code - 1])

    def _called(self, raised: list[BaseException], number: int, given: Any) -> int:
        fn, views = self._program.callbacks[number]
        try:
            fn(*[_copied(pointer, view) for pointer, view in zip(given[: len(views)], views, strict=True)])
        except BaseException as error:
            raised.append(error)
            return 1
        return 0


_NOTHING = _HOOK()
_ERRORS: dict[int, tuple[type[Exception], str]] = {
    -2: (IndexError, "an index is out of range in a compiled program; run it without jit to see where"),
    -3: (MemoryError, "there is no memory for the temporaries of a compiled program"),
    -4: (ZeroDivisionError, "an integer is divided by zero in a compiled program"),
    -6: (RuntimeError, "an operation of torch gave another shape or dtype than while it was traced"),
}


def _error(code: int) -> Exception:
    """Return the error for a code; -5 is one of torch."""
    text = last_error() if code == -5 else ""
    if text.startswith(("linalg.", "torch.linalg.")):
        return torch.linalg.LinAlgError(text)
    kind, what = _ERRORS.get(code, (RuntimeError, f"an operation of torch: {text}"))
    return kind(f"jit: {what}")


def _copied(pointer: int, view: View) -> Tensor:
    """Copy what a pointer shows into a tensor."""
    size = sum((n - 1) * abs(s) for n, s in zip(view.shape, view.strides, strict=True)) + 1
    if 0 in view.shape:
        return torch.empty(view.shape, dtype=view.dtype)
    low = sum(min((n - 1) * s, 0) for n, s in zip(view.shape, view.strides, strict=True))
    raw = (ctypes.c_char * (size * view.dtype.itemsize)).from_address(pointer + low * view.dtype.itemsize)
    return torch.frombuffer(bytearray(raw), dtype=view.dtype).as_strided(view.shape, view.strides, -low).clone()


def compiled(module: GraphModule, tensors: Sequence[Tensor], build: Build) -> Native | None:
    """Compile a program for one thread of the CPU, or return None where another backend must serve it."""
    try:
        made = lowered(module, tensors)
    except UnsupportedError:  # decomposed, it may be known
        try:
            made = lowered(decomposed(module, tensors), tensors, foreign)
        except UnsupportedError:
            return None
    return Native(made, build(made.source, command()))
