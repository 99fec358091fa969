"""Private copies of a module, and facts that its bytecode proves."""

from ._parameter_trees import nested as nested
from ._pool import Pool as Pool
from ._pool import Skeleton as Skeleton
from ._pool import Slot as Slot
from ._pool import fill as fill
from ._pool import pool_of as pool_of
