"""Small programs and loops, as one function of C++."""

from ._program import Native as Native
from ._program import compiled as compiled
from ._refused import picks_of_nothing as picks_of_nothing
from ._refused import takes_complex_numbers as takes_complex_numbers
from ._values import UnsupportedError as UnsupportedError
