"""Trace a function into a program: its shapes, its graph, its constants."""

from ._constants import RealConstants as RealConstants
from ._constants import trace_with_constants as trace_with_constants
from ._eval_shape import ShapeDtype as ShapeDtype
from ._eval_shape import eval_shape as eval_shape
from ._make_fx import trace as trace
from ._make_graph import Graph as Graph
from ._make_graph import make_graph as make_graph
from ._named_scope import named_scope as named_scope
from ._program_text import program_text as program_text
from ._refusals import explain_tracing_errors as explain_tracing_errors
