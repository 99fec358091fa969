"""Small programs and loops, as one function of C++."""

from ._compile import Native as Native
from ._compile import compiled as compiled
from .frontend import picks_of_nothing as picks_of_nothing
from .frontend import takes_complex_numbers as takes_complex_numbers
from .ir import UnsupportedError as UnsupportedError
