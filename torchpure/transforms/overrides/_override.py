"""One row of the registry: which operations of torch are overridden, where, by what, and until which version."""

from collections.abc import Callable, Sequence
from enum import Flag, auto
from typing import Any, NamedTuple


class Where(Flag):
    """The places where an override applies; `|` joins several."""

    ALWAYS = auto()  # wherever the mode is on, under plain autograd too
    IN_TRANSFORM = auto()  # while a level of torch's transforms is open; a first gradient alone keeps torch's kernel
    FORWARD_MODE = auto()  # while a forward derivative is open
    THIRD_GRADIENT = auto()  # where three gradients or more are taken: torch's first two are right
    VMAP_RETRY = auto()  # in the second run of a vmap whose first run failed
    TRIED = auto()  # everywhere, and first: the rule takes `(operation, args, kwargs)`; if it returns None, others run
    INTERCEPTED = auto()  # the rule runs before the operation, and returns the arguments for it, or raises


class Override(NamedTuple):
    """Operations of torch, and the rule that runs in their place.

    A rule takes the arguments of its operation, and computes the same value. An INTERCEPTED rule takes `(args, kwargs)`
    and returns them, changed or not.
    """

    operations: Sequence[Any]  # as the mode sees them: `torch.det` and `Tensor.det` are two
    where: Where
    rule: Callable[..., Any]
    until: str | None = None  # the first torch version that does not need the override; None: not known
