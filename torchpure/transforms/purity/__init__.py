"""Checks that a function under a transform changes nothing that it was given or captures."""

from ._draws import operator_draws as operator_draws
from ._guard import Watch as Watch
from ._guard import run_watched as run_watched
from ._guard import watched as watched
from ._pure import is_lifted_literal as is_lifted_literal
from ._pure import mutated_arguments as mutated_arguments
from ._pure import pure as pure
from ._pure import storage_key as storage_key
from ._reach import name_of as name_of
from ._reach import needs_overrides as needs_overrides
from ._reach import reachable as reachable
