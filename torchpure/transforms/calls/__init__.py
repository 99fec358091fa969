"""A user's function as one operation, for autograd and for tracers."""

from ._autograd_rules import (
    differentiable,
    instantiate_zeros,
    needs_rules,
    primal,
    replace_at,
    save_for_rules,
    saved_primals,
    transpose_linear,
    unwrap_closed_levels,
)
from ._call import Call, bind_positional, check_callable, check_nondiff_argnums, number_to_tensor
from ._cell_snapshot import snapshot_cells
from ._closure_convert import ClosureConversion, ReplaceCaptures
from ._forward_rule import ForwardRule, ForwardRuleCall
from ._keyword_hints import hint_keywords
from ._packed import Packed
from ._primitives import (
    CHECK,
    FlatFn,
    callback_p,
    is_tracing,
    register_mode,
    register_recorder,
    scan_p,
    switch_p,
    while_p,
)
from ._rerun import Rerun, insert_nones, jvp_by_rerun, restrict_to_variables, vjp_by_rerun

__all__ = [
    "CHECK",
    "Call",
    "ClosureConversion",
    "FlatFn",
    "ForwardRule",
    "ForwardRuleCall",
    "Packed",
    "ReplaceCaptures",
    "Rerun",
    "bind_positional",
    "callback_p",
    "check_callable",
    "check_nondiff_argnums",
    "differentiable",
    "hint_keywords",
    "insert_nones",
    "instantiate_zeros",
    "is_tracing",
    "jvp_by_rerun",
    "needs_rules",
    "number_to_tensor",
    "primal",
    "register_mode",
    "register_recorder",
    "replace_at",
    "restrict_to_variables",
    "save_for_rules",
    "saved_primals",
    "scan_p",
    "snapshot_cells",
    "switch_p",
    "transpose_linear",
    "unwrap_closed_levels",
    "vjp_by_rerun",
    "while_p",
]
