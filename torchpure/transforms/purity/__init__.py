"""What a function under a transform must leave alone, and how that is seen."""

from ._draws import operator_draws as operator_draws
from ._guard import Watch as Watch
from ._guard import run_watched as run_watched
from ._guard import watched as watched
from ._pure import address as address
from ._pure import made_of_numbers as made_of_numbers
from ._pure import pure as pure
from ._pure import written as written
from ._reach import name_of as name_of
from ._reach import reachable as reachable
from ._reach import runs as runs
