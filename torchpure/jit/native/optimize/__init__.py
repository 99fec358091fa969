"""Kernels → fewer kernels, and where memory lies."""

from ._collapse_loops import collapse_loops as collapse_loops
from ._memory_plan import plan_memory as plan_memory
