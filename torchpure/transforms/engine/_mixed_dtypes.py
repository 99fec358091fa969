"""Say which argument and which parameter have which dtype, where an operation of torch refuses to mix them."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from inspect import CO_VARARGS, CO_VARKEYWORDS, unwrap
from traceback import walk_tb
from types import FrameType
from typing import Any

from torch import Tensor, nn

from torchpure import tree

_REFUSAL = re.compile(
    r"same (?:data ?type|dtype|scalar type)|expected scalar type|[Ii]nput type .* should be the same|mixed dtype"
    r"|dtypes match"
)


def mixed_dtypes(fn: Callable[..., Any], error: Exception) -> str | None:
    """Return what an error of torch about dtypes means for `fn`; None if it is another error, or the dtypes agree.

    The frames of the error hold the arguments, and the module whose parameters met them.
    """
    if not isinstance(error, RuntimeError) or not _REFUSAL.search(str(error)):
        return None
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    by_dtype: dict[Any, str] = {}
    for name, leaf in (*_given(fn, frames), *_parameters(frames)):
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
            by_dtype.setdefault(leaf.dtype, name)
    if len(by_dtype) < 2:
        return None
    came = [f"{name} is {str(dtype).removeprefix('torch.')}" for dtype, name in by_dtype.items()]
    return (
        f"mixes dtypes in an operation that needs one: {', '.join(came[:-1])} and {came[-1]}. Cast one of them, with "
        "x.to(dtype) or module.to(dtype)"
    )


def _given(fn: Callable[..., Any], frames: list[FrameType]) -> Iterator[tuple[str, Any]]:
    """List the leaves of the arguments of `fn`, and what it captures, by name."""
    inner = unwrap(fn)
    while isinstance(inner, partial):
        inner = unwrap(inner.func)
    code = getattr(inner, "__code__", None)
    frame = next((frame for frame in frames if (frame.f_code is code if code else _is_forward(frame))), None)
    if frame is None:
        return
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & CO_VARARGS) + bool(code.co_flags & CO_VARKEYWORDS)
    arguments = code.co_varnames[:count]
    for name in (*arguments, *code.co_freevars):
        value = frame.f_locals.get(name)
        kind = "argument" if name in arguments else "captured"
        for path, leaf in zip(tree.paths(value), tree.leaves(value), strict=True):
            yield f"{kind} `{name}`" + ("" if path == "." else f" at `{path}`"), leaf


def _is_forward(frame: FrameType) -> bool:
    return frame.f_code.co_name == "forward" and isinstance(frame.f_locals.get("self"), nn.Module)


def _parameters(frames: list[FrameType]) -> Iterator[tuple[str, Any]]:
    """List the parameters and buffers of the innermost module, by their names in the outermost one."""
    modules = [frame.f_locals["self"] for frame in frames if isinstance(frame.f_locals.get("self"), nn.Module)]
    if not modules:
        return
    root, layer = modules[0], modules[-1]
    prefix = next((name for name, module in root.named_modules() if module is layer), "")
    for kind, found in (("parameter", layer.named_parameters), ("buffer", layer.named_buffers)):
        for name, leaf in found(recurse=False):
            yield f"{kind} `{prefix}{'.' if prefix else ''}{name}` of {type(root).__name__}", leaf
