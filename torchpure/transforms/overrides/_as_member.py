"""A function of one member of a vmap, without the vmap's level."""

from collections.abc import Callable
from functools import wraps

from torchpure._types import P, T
from torchpure.transforms.context import current

from ._mode import overriding


def as_member(fn: Callable[P, T]) -> Callable[P, T]:
    """Make a function whose operations are replaced as they are under a vmap.

    A compiled vmap may run members one after another. A member that fails must not end the others then either.
    """

    @wraps(fn, updated=())
    def member(*args: P.args, **kwargs: P.kwargs) -> T:
        before, current.in_member = current.in_member, True
        try:
            with overriding():
                return fn(*args, **kwargs)
        finally:
            current.in_member = before

    return member
