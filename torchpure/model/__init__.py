"""Unmodified modules as pure functions, and back."""

from ._ensemble import ensemble, stack, unstack
from ._functional import Functional, functional, make_functional_fwd
from ._partition import merge, partition
from .copies import nested

__all__ = [
    "Functional",
    "ensemble",
    "functional",
    "make_functional_fwd",
    "merge",
    "nested",
    "partition",
    "stack",
    "unstack",
]
