"""Passes over traced programs. Each pass returns a new program that computes the same, and leaves its input as it is.

`_fx.py` holds the questions that all passes ask about fx nodes. Analyses, such as `peak_memory`, return a number.
"""

from ._common_subexpressions import eliminate_common_subexpressions
from ._dead_code import eliminate_dead_code
from ._fx import (
    attribute,
    bodies,
    constants,
    control_flow_kind,
    copy_program,
    example_tensor,
    extract_subprogram,
    fake_value,
    has_control_flow,
    is_view,
    mutates,
    output_aliases,
    placeholders,
    results,
    return_tuple,
)
from ._hoist_scalars import hoist_scalars
from ._loop_invariant import hoist_loop_invariants
from ._peak_memory import peak_memory
from ._split_at_peak import split_at_peak

__all__ = [
    "attribute",
    "bodies",
    "constants",
    "control_flow_kind",
    "copy_program",
    "eliminate_common_subexpressions",
    "eliminate_dead_code",
    "example_tensor",
    "extract_subprogram",
    "fake_value",
    "has_control_flow",
    "hoist_loop_invariants",
    "hoist_scalars",
    "is_view",
    "mutates",
    "output_aliases",
    "peak_memory",
    "placeholders",
    "results",
    "return_tuple",
    "split_at_peak",
]
