"""What to tell users: operations that lack a derivative, and functions whose second derivatives are zero everywhere."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure.errors import TorchpureError, TransformError
from torchpure.transforms.engine import describe_function, explain, mixed_dtypes, user_line

Result = TypeVar("Result")
_KINKED = frozenset({torch.relu, Tensor.relu, F.relu, F.relu6, F.leaky_relu, F.hardtanh, F.threshold, F.rrelu})


class NoRuleError(TransformError):
    """The derivative of an operation that the mode follows needs one that torch lacks."""


def deriving(func: Callable[..., Any], derive: Callable[[], Result]) -> Result:
    """Compute the derivative of an operation; name the operation and the user's line if torch lacks it."""
    try:
        return derive()
    except TransformError as error:
        if "no forward derivative" not in str(error) or isinstance(error, NoRuleError):
            raise
        name = getattr(func, "__name__", str(func))
        raise NoRuleError(
            f"{user_line()} uses `{name}`, whose second derivative torch lacks: use other operations, or give it a "
            "rule with tp.custom_jvp"
        ) from error


@contextmanager
def explained(caller: str, fn: Callable[..., Any]) -> Iterator[None]:
    """Make an error of a derivative that torch lacks one of this operator and of the user's function and line."""
    try:
        yield
    except NoRuleError as error:
        raise TransformError(f"{caller}: {describe_function(fn)}{error}") from error
    except TransformError as error:
        cause = error.__cause__
        known = explain(caller, fn, cause) if str(error).startswith("jvp: ") and isinstance(cause, Exception) else None
        if known is None:
            raise
        raise known from cause
    except TorchpureError:
        raise
    except RuntimeError as error:
        known = explain(caller, fn, error) if mixed_dtypes(fn, error) else None
        if known is None:
            raise
        raise known from error


def is_kinked(func: Callable[..., Any]) -> bool:
    """Return whether an activation is linear between kinks.

    >>> is_kinked(torch.relu), is_kinked(torch.tanh)
    (True, False)
    """
    return func in _KINKED


def kink_of(func: Callable[..., Any]) -> str | None:
    """Return the name and the user's line of an activation that is linear between kinks; None for others."""
    return f"`{func.__name__}`{user_line().rstrip(',')}" if func in _KINKED else None


def warn_of_kinks(kink: str) -> None:
    """Warn that all second derivatives are zero."""
    warnings.warn(
        f"second derivatives are zero everywhere: the function is linear between its kinks, the first of which is at "
        f"{kink}. A residual of them teaches nothing: take tanh, GELU, SiLU, softplus or sin as the activation",
        stacklevel=2,
    )
