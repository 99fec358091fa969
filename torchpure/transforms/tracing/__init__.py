"""Trace a function into a program: its shapes, its graph, its constants."""

from ._constants import RealConstants, trace_with_constants
from ._eval_shape import ShapeDtype, eval_shape
from ._make_fx import trace
from ._make_graph import Graph, make_graph
from ._named_scope import named_scope
from ._program_text import program_text
from ._refusals import explain_tracing_errors

__all__ = [
    "Graph",
    "RealConstants",
    "ShapeDtype",
    "eval_shape",
    "explain_tracing_errors",
    "make_graph",
    "named_scope",
    "program_text",
    "trace",
    "trace_with_constants",
]
