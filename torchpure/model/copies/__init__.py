"""Private copies of a module, and facts that its bytecode proves."""

from ._parameter_trees import nested
from ._pool import Pool, Skeleton, Slot, fill, pool_of

__all__ = ["Pool", "Skeleton", "Slot", "fill", "nested", "pool_of"]
