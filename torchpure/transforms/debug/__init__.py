"""See values from inside transforms and compiled programs: `print`, `callback`, and the assertion `check`."""

from ._callback import callback as callback
from ._callback import print as print
from ._check import check as check
