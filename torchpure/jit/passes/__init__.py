"""Passes over traced programs: each takes a program and returns one that computes the same; its own stays as it is."""

from ._common_subexpressions import duplicates as duplicates
from ._dead_code import dead as dead
from ._fx import attribute as attribute
from ._fx import bodies as bodies
from ._fx import constants as constants
from ._fx import copied as copied
from ._fx import example as example
from ._fx import has_loops as has_loops
from ._fx import is_view as is_view
from ._fx import let_out as let_out
from ._fx import loop as loop
from ._fx import mutates as mutates
from ._fx import placeholders as placeholders
from ._fx import results as results
from ._fx import subprogram as subprogram
from ._fx import tupled as tupled
from ._fx import value as value
from ._hoist_scalars import split as split
from ._loop_invariant import loop_invariant as loop_invariant
from ._peak_memory import peak as peak
from ._split_at_peak import halves as halves
