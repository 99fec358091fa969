"""Numbers of steps, rows and batches."""

import operator
from typing import Any

from torch import Tensor


def checked_count(caller: str, name: str, value: Any, least: int = 1) -> int:
    """Return a count as an int; integers of NumPy count too, booleans do not.

    Raises:
        ValueError: it is no integer of at least `least`.

    >>> import numpy
    >>> checked_count("fit", "every", numpy.int64(3))
    3
    """
    try:
        count = -1 if isinstance(value, bool | Tensor) else operator.index(value)
    except TypeError:
        count = -1
    if count < least:
        raise ValueError(f"{caller}: {name} must be an integer, at least {least}, got {value!r:.60}")
    return count
