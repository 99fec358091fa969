"""Run one of torch's transforms; after a failure that a mode can repair or explain, run it again under that mode."""

import re
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from torchpure._torch import TorchDispatchMode
from torchpure.errors import TorchpureError
from torchpure.transforms.engine import (
    DATA_DEPENDENT,
    INDETERMINATE,
    OF_NESTED,
    SHARED_WRITE,
    TensorIndexing,
    clear_autocast_cache,
    explain,
    functorch,
    is_shared_write,
    level_kinds,
    writes_shared,
)

from ._nested_autograd import NESTED_CONSTANT, refuse_nested_copies
from ._registry import VMAP_RETRY

_BACKWARD = frozenset({torch.autograd.grad, torch.autograd.backward, Tensor.backward})
_MIXED_DTYPES = "expected scalar type"  # the second backward pass of a norm with weights of another dtype
_MAPS = {"vmap", "jacfwd", "jacrev", "hessian"}


def run_transform(caller: str, fn: Callable[..., Any], run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return `run(*args, **kwargs)`, a transform of `fn`; known errors of torch become errors that say what to do.

    Raises:
        TransformError: `fn` runs an operation that torch's transforms cannot follow; the message names it.
        ImpureError: `fn` changes an argument or a captured tensor.
    """
    try:
        return _run(caller, run, *args, **kwargs)
    except TorchpureError:
        raise
    except (RuntimeError, AttributeError, AssertionError, ValueError) as error:  # nested tensors raise the last three
        of_user = isinstance(error, ValueError) and not re.search(f"{INDETERMINATE}|{OF_NESTED}", str(error))
        known = None if of_user else explain(caller, fn, error)
        if known is None:
            raise
        raise known from error
    finally:
        if not is_dynamo_compiling():
            clear_autocast_cache()


def _run(caller: str, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a transform; if it fails in a way that a mode can repair or explain, run it again under that mode."""
    try:
        return run(*args, **kwargs)
    except TorchpureError:
        raise
    except RuntimeError as error:
        mode = _retry_mode(caller, str(error))
        if mode is None:
            raise
    with mode:
        return run(*args, **kwargs)


def _retry_mode(caller: str, message: str) -> TorchFunctionMode | TorchDispatchMode | None:
    if NESTED_CONSTANT in message:
        return _NestedCopies()
    if DATA_DEPENDENT in message:  # under a gradient, torch reads a number for `x[i]` with a batched `i`
        return TensorIndexing()
    if (is_shared_write(message) or _MIXED_DTYPES in message) and (
        caller in _MAPS or functorch.TransformType.Vmap in level_kinds()
    ):
        return None if is_dynamo_compiling() else _SharedWrites()
    return None


class _SharedWrites(TorchFunctionMode):
    """Finds the write of a batched value into an unbatched tensor, or avoids it.

    A write by an operation of the function is an error that says so. A write in torch's own second backward pass is
    avoided by the VMAP_RETRY rules.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, or its rule."""
        try:
            return VMAP_RETRY.get(func, func)(*args, **(kwargs or {}))
        except RuntimeError as error:
            if func in _BACKWARD or not writes_shared(str(error), args, kwargs):
                raise
            raise RuntimeError(f"{SHARED_WRITE}: {error}") from error


class _NestedCopies(TorchDispatchMode):
    """Finds a call of `torch.nested.nested_tensor` that copies variables, which function modes do not see."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        if func is torch.ops.aten._nested_tensor_from_tensor_list.default:
            frame: Any = sys._getframe()
            while frame is not None and frame.f_code is not torch.nested.nested_tensor.__code__:
                frame = frame.f_back
            refuse_nested_copies(frame)
        return func(*args, **(kwargs or {}))
