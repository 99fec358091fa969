"""Run one of torch's transforms; after a failure that a mode can repair or explain, run it again under that mode."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from torchpure.transforms.engine import (
    BRANCHES,
    SHARED,
    Indexing,
    explanation,
    forget_casts,
    functorch,
    kinds,
    may_be_shared,
    writes_shared,
)

from ._registry import VMAP_RETRY

_BACKWARD = frozenset({torch.autograd.grad, torch.autograd.backward, Tensor.backward})
_MAPS = {"vmap", "jacfwd", "jacrev", "hessian"}


def explained(who: str, fn: Callable[..., Any], run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return `run(*args, **kwargs)`, one of torch's transforms of `fn`; say what to do about errors that are known.

    Raises:
        TransformError: `fn` does what torch's transforms cannot follow; the operation is named.
        ImpureError: `fn` changes what it was given.
    """
    try:
        return _run(who, run, *args, **kwargs)
    except RuntimeError as error:
        known = explanation(who, fn, error)
        if known is None:
            raise
        raise known from error
    finally:
        if not is_dynamo_compiling():
            forget_casts()


def _run(who: str, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a transform; again, under a mode that puts it right or finds the cause, if torch failed where that can be."""
    try:
        return run(*args, **kwargs)
    except RuntimeError as error:
        mode = _again(who, str(error))
        if mode is None:
            raise
    with mode:
        return run(*args, **kwargs)


def _again(who: str, message: str) -> TorchFunctionMode | None:
    if BRANCHES in message:  # torch took `x[i]` for a number where `i` is a mapped tensor under a gradient
        return Indexing()
    if may_be_shared(message) and (who in _MAPS or functorch.TransformType.Vmap in kinds()):
        return None if is_dynamo_compiling() else _SharedWrites()
    return None


class _SharedWrites(TorchFunctionMode):
    """Runs a function again in which there was no room for all members.

    An operation of the function that writes what is mapped into what is not is told apart, by an error that says so.
    Otherwise it was an operation of torch's own, in a backward pass of a backward pass: those known are replaced.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        try:
            return VMAP_RETRY.get(func, func)(*args, **(kwargs or {}))
        except RuntimeError as error:
            if func in _BACKWARD or not writes_shared(str(error), args, kwargs):
                raise
            raise RuntimeError(f"{SHARED}: {error}") from error
