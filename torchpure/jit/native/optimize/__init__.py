"""Kernels → fewer kernels, and where memory lies."""

from ._collapse_loops import collapsed as collapsed
from ._memory_plan import planned as planned
