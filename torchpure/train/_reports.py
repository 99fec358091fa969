"""Hand the divergence of a fit to the sweep that runs it, which reports all members at once.

The list is a context variable: it lives from the start to the end of one member's run, and holds tensors of the level
of transforms at which that run started. A fit at another level does not use it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torchpure import tree
from torchpure.transforms.engine import current_level

from .callbacks import Divergence


class _Collected(NamedTuple):
    place: tuple[int, bool]  # the level of transforms, and whether no transform or tracer is active
    found: list[Divergence]


_COLLECTED: ContextVar[_Collected | None] = ContextVar("torchpure_divergences", default=None)


def _here() -> tuple[int, bool]:
    return current_level(), tree.unwatched()


@contextmanager
def collect() -> Iterator[list[Divergence]]:
    """Collect the divergences of the fits with on_nonfinite="raise" that run in this block, at this level."""
    found: list[Divergence] = []
    token = _COLLECTED.set(_Collected(_here(), found))
    try:
        yield found
    finally:
        _COLLECTED.reset(token)


def is_collected() -> bool:
    """Return whether a sweep collects what a fit finds here."""
    collected = _COLLECTED.get()
    return collected is not None and collected.place == _here()


def report(found: Divergence) -> bool:
    """Hand a divergence to the sweep; return whether there is one."""
    collected = _COLLECTED.get()
    if collected is None or collected.place != _here():
        return False
    collected.found.append(found)
    return True
