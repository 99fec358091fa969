"""Draws from the global generators of Python and NumPy while a program is traced: it keeps their numbers."""

import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torchpure.transforms.engine import describe_function


@contextmanager
def warn_of_python_draws(caller: str, fn: Callable[..., Any]) -> Iterator[None]:
    """Warn if a function that is traced in this block draws from `random` or `numpy.random`.

    It is no error: another thread may have drawn, or the function wants a number that stays.
    """
    before = _states()
    yield
    drawn = [name for name, state in _states().items() if state != before[name]]
    if drawn:
        warnings.warn(
            f"{caller}: {describe_function(fn)} draws from {' and '.join(drawn)} while it is traced, and the program "
            "keeps these numbers in all calls: draw with tp.random and a key, or pass the numbers as arguments",
            stacklevel=2,
        )


def _states() -> dict[str, Any]:
    """Return the state of each global generator, by its name; that of NumPy is None while it is new.

    NumPy's is not imported for this: a fork while another thread imports it would leave the child waiting for ever.
    """
    get_state = getattr(sys.modules.get("numpy.random"), "get_state", None)
    numpy: Any = None if get_state is None else get_state(legacy=False)
    if numpy is not None:
        position, words = numpy["state"]["pos"], numpy["state"]["key"]
        numpy = None if position >= len(words) - 1 else (position, words.tobytes(), numpy["has_gauss"])
    return {"`random`": random.getstate(), "`numpy.random`": numpy}
