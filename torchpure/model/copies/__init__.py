"""Private copies of a module, and facts that its bytecode proves."""

from ._difference import first_difference
from ._parameter_trees import nested
from ._pool import Pool, Skeleton, Slot, fill, pool_of
from ._running_call import RunningCall

__all__ = ["Pool", "RunningCall", "Skeleton", "Slot", "fill", "first_difference", "nested", "pool_of"]
