"""What the generator takes, and what it refuses."""

from ._decompose import decomposed as decomposed
from ._mutation import changed as changed
from ._mutation import changes as changes
from ._mutation import reshapes as reshapes
from ._unsupported import picks_of_nothing as picks_of_nothing
from ._unsupported import takes_complex_numbers as takes_complex_numbers
