"""See values from inside transforms and compiled programs: `print`, `callback`, and the assertion `check`."""

from ._callback import callback, print
from ._check import check

__all__ = ["callback", "check", "print"]
