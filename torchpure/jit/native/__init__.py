"""Small programs and loops, as one function of C++."""

from ._program import Native as Native
from ._program import compiled as compiled
from ._values import UnsupportedError as UnsupportedError
