"""Errors of code that needs the numbers of tensors while it is traced."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torchpure._torch import DynamicOutputShapeException
from torchpure.errors import TransformError
from torchpure.transforms.engine import describe_function, explain, user_line, validation_advice

from ._dtype_check import MixedDtypesError

_NEEDS_NUMBERS = (
    "data-dependent", "DataDependentOutput", "guard on", "_local_scalar_dense", "non-constant bool",
    ".numpy() is not supported for tensor subclasses", "passed to FakeTensor.__format__",
    "its data is not allocated yet",
)  # fmt: skip
_EXPLAINED = (RuntimeError, AttributeError, AssertionError)
_ADVICE = "choose with torch.where instead of a branch, and keep values as tensors instead of .item()"


@contextmanager
def explain_tracing_errors(caller: str, fn: Callable[..., Any], advice: str = _ADVICE) -> Iterator[None]:
    """Turn errors about unknown numbers into errors that say what the function does, and what to do instead.

    Raises:
        TransformError: `fn` needs the number of a tensor, or mixes dtypes in an operation that needs one.
    """
    try:
        yield
    except DynamicOutputShapeException as error:
        raise TransformError(
            f"{caller}: {describe_function(fn)}{user_line(error)} makes a tensor whose size depends on numbers: "
            "keep all entries, and choose with tp.where"
        ) from error
    except MixedDtypesError as error:
        raise TransformError(f"{caller}: {describe_function(fn)}{user_line(error)} {error}") from error
    except Exception as error:
        if not any(sign in f"{type(error).__name__} {error}" for sign in _NEEDS_NUMBERS):
            known = explain(caller, fn, error) if isinstance(error, _EXPLAINED) else None
            if known is None:
                raise
            raise known from error
        does = validation_advice(error) or f"needs the number of a tensor that has none here: {advice}"
        raise TransformError(f"{caller}: {describe_function(fn)}{user_line(error)} {does}") from error
