"""Draws from the global generators of Python and NumPy while a program is traced: it keeps their numbers."""

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

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
    """Return the state of each global generator, by its name."""
    numpy: Any = np.random.get_state(legacy=False)
    state = numpy["state"]
    return {"`random`": random.getstate(), "`numpy.random`": (state["pos"], state["key"].tobytes(), numpy["has_gauss"])}
