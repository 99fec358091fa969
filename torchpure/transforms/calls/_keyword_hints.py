"""Answer keywords of torch.func and JAX, which functions here do not have, with what to use instead."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_FIRST = "pass the function by position, as the first argument"
_EVERYWHERE = {
    "func": _FIRST,
    "fun": _FIRST,
    "holomorphic": "leave it out; for complex values, use jvp, vjp or torch.view_as_real",
    "allow_int": "leave it out: the derivative for an integer tensor is None",
}


def hint_keywords(**hints: str) -> Callable[[F], F]:
    """Decorate a function: if a call has one of these keywords, the error says what to use instead.

    Raises:
        TypeError: a call has such a keyword.

    >>> @hint_keywords(in_axes="write in_dims")
    ... def vmap(fn, in_dims=0): ...
    >>> vmap(abs, in_axes=0)
    Traceback (most recent call last):
    TypeError: vmap: there is no argument `in_axes`: write in_dims
    """
    known = _EVERYWHERE | hints

    def decorate(function: F) -> F:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for name in kwargs:
                if name in known:
                    raise TypeError(f"{function.__name__}: there is no argument `{name}`: {known[name]}")
            return function(*args, **kwargs)

        return cast("F", call)

    return decorate
