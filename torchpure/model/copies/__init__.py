"""Private copies of a module, and facts that its bytecode proves."""

from ._parameter_trees import nested
from ._pool import Pool, Skeleton, Slot, fill, pool_of
from ._running_call import RunningCall

__all__ = ["Pool", "RunningCall", "Skeleton", "Slot", "fill", "nested", "pool_of"]
