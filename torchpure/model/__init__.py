"""Unmodified modules as pure functions, and back."""

from ._ensemble import ensemble, stack, unstack
from ._functional import Functional, functional, make_functional_fwd
from ._partition import merge, partition
from .copies import nested
from .draws import call_with_key

__all__ = [
    "Functional",
    "call_with_key",
    "ensemble",
    "functional",
    "make_functional_fwd",
    "merge",
    "nested",
    "partition",
    "stack",
    "unstack",
]
