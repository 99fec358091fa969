"""A switch that suppresses callbacks, so that each one runs once although rules run functions again."""

from collections.abc import Iterator
from contextlib import contextmanager

from ._context import current


def callbacks_suppressed() -> bool:
    """Tell whether callbacks are suppressed in this thread."""
    return current.suppressions > 0


@contextmanager
def suppress_callbacks() -> Iterator[None]:
    """Suppress callbacks inside of the block, in which a rule re-runs a function."""
    current.suppressions += 1
    try:
        yield
    finally:
        current.suppressions -= 1
