"""Passes over traced programs. Each pass returns a new program that computes the same, and leaves its input as it is.

`_fx.py` holds the questions that all passes ask about fx nodes. Analyses, such as `peak_memory`, return a number.
"""

from ._common_subexpressions import eliminate_common_subexpressions as eliminate_common_subexpressions
from ._dead_code import eliminate_dead_code as eliminate_dead_code
from ._fx import attribute as attribute
from ._fx import bodies as bodies
from ._fx import constants as constants
from ._fx import control_flow_kind as control_flow_kind
from ._fx import copy_program as copy_program
from ._fx import example_tensor as example_tensor
from ._fx import extract_subprogram as extract_subprogram
from ._fx import fake_value as fake_value
from ._fx import has_control_flow as has_control_flow
from ._fx import is_view as is_view
from ._fx import mutates as mutates
from ._fx import output_aliases as output_aliases
from ._fx import placeholders as placeholders
from ._fx import results as results
from ._fx import return_tuple as return_tuple
from ._hoist_scalars import hoist_scalars as hoist_scalars
from ._loop_invariant import hoist_loop_invariants as hoist_loop_invariants
from ._peak_memory import peak_memory as peak_memory
from ._split_at_peak import split_at_peak as split_at_peak
