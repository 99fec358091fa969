"""Checks that a function under a transform changes nothing that it was given or captures."""

from ._draws import operator_draws
from ._guard import Watch, run_watched, watched
from ._hidden_tensors import refuse_hidden_tensors
from ._pure import is_lifted_literal, mutated_arguments, pure, storage_key
from ._reach import name_of, needs_overrides, reachable

__all__ = [
    "Watch",
    "is_lifted_literal",
    "mutated_arguments",
    "name_of",
    "needs_overrides",
    "operator_draws",
    "pure",
    "reachable",
    "refuse_hidden_tensors",
    "run_watched",
    "storage_key",
    "watched",
]
