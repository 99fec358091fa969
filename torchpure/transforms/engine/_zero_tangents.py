"""Zero tangents of Python numbers, which must not change a dtype.

In `x.sum() * 0.5` torch makes a float64 tensor of 0.5. For the product its dtype does not count, because torch marks
the tensor as a number. Its zero tangent has no such mark. Added to the tangent of `x.sum()`, of shape () too, it gives
float64. So zeros of shape () that torch makes in double precision get the least precision that a primal has.

The rule costs time at each zero tangent. So it starts with the first tangent that has another dtype than its primal.
"""

import re
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, get_kernel

from torchpure._torch import DispatchKey, DispatchKeySet

_WIDE = frozenset({torch.float64, torch.complex128})
_NARROW = {
    torch.complex64: torch.float32,
    torch.float32: torch.float32,
    torch.float16: torch.float16,
    torch.bfloat16: torch.bfloat16,
}
_ABOUT_DTYPES = re.compile(r"dtype|scalar type|float64|complex128|Double")
_REPLACES = ("ignore", re.compile("Warning only once for all operators"), Warning, None, 0)  # of warnings.filters
_registered: list[Library] = []  # the rule lives as long as its library


class _Thread(threading.local):
    dtype: torch.dtype | None = None  # of zeros of shape () that torch makes in double precision; None: as torch


_thread = _Thread()


class WideTangentError(RuntimeError):
    """A tangent has another dtype than its primal."""


def with_narrow_zeros(run: Callable[..., Any], primals: Iterable[Tensor], *args: Any) -> Any:
    """Return `run(*args)`, a forward derivative; run it again under the rule if a dtype does not fit without it."""
    before = _thread.dtype
    if before is None and _registered:
        _thread.dtype = _least_precise(primals)
    try:
        return run(*args)
    except Exception as error:
        if _thread.dtype is not None or not (isinstance(error, WideTangentError) or _ABOUT_DTYPES.search(str(error))):
            raise
        _register()
        _thread.dtype = _least_precise(primals) or torch.float32
        return run(*args)
    finally:
        _thread.dtype = before


def _least_precise(primals: Iterable[Tensor]) -> torch.dtype | None:
    found = [_NARROW[leaf.dtype] for leaf in primals if leaf.dtype in _NARROW]
    return min(found, key=lambda dtype: dtype.itemsize, default=None)


def like_primals(tangents: Sequence[Tensor], primals: Sequence[Tensor]) -> list[Tensor]:
    """Return tangents with the dtypes of their primals.

    Raises:
        WideTangentError: a dtype differs, and the rule is not active yet.
    """
    if all(t.dtype == p.dtype for t, p in zip(tangents, primals, strict=True)):
        return list(tangents)
    if _thread.dtype is None:
        raise WideTangentError("a tangent has another dtype than its primal")
    return [t.to(p.dtype) for t, p in zip(tangents, primals, strict=True)]


def traced_zeros(shape: Any, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    """Return the zeros of a program, which has no zeros without memory."""
    return torch.ops.aten.zeros.default(shape, dtype=_narrowed(shape, dtype), **options)


def _narrowed(shape: Any, dtype: torch.dtype | None) -> torch.dtype | None:
    return _thread.dtype if _thread.dtype is not None and not shape and dtype in _WIDE else dtype


def _register() -> None:
    if _registered:
        return
    kernel = get_kernel("aten::_efficientzerotensor", "CPU")  # numbers live on the CPU
    keys = DispatchKeySet(DispatchKey.CPU)

    def zeros(size: Any, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None) -> Tensor:
        options = {"layout": layout, "device": device, "pin_memory": pin_memory}
        return kernel.call_boxed(keys, size, dtype=_narrowed(size, dtype), **options)

    filters: Any = warnings.filters  # torch warns that a kernel is replaced: see `_forward_rules.py`
    filters.insert(0, _REPLACES)
    try:
        library = Library("aten", "IMPL")
        library.impl("_efficientzerotensor", zeros, "CPU", allow_override=True)
        _registered.append(library)
    finally:
        filters.remove(_REPLACES)
