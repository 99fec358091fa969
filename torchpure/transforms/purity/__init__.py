"""Checks that a function under a transform changes nothing that it was given or captures."""

from ._draws import operator_draws
from ._guard import NoWatch, Watch, run_watched, watched
from ._hidden_tensors import refuse_hidden_tensors
from ._pure import NORMS_THAT_WRITE, is_lifted_literal, mutated_arguments, pure, storage_key
from ._python_draws import warn_of_python_draws
from ._reach import forward_hooks, name_of, reachable

__all__ = [
    "NORMS_THAT_WRITE",
    "NoWatch",
    "Watch",
    "forward_hooks",
    "is_lifted_literal",
    "mutated_arguments",
    "name_of",
    "operator_draws",
    "pure",
    "reachable",
    "refuse_hidden_tensors",
    "run_watched",
    "storage_key",
    "warn_of_python_draws",
    "watched",
]
