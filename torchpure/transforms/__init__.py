"""Functions of functions: derivatives, vectorisation, and rules of their own."""

from . import debug
from .batching import Mapping, all_gather, axis_index, pmax, pmean, pmin, psum, vmap
from .control_flow import associative_scan, cond, fori_loop, map, scan, switch, while_loop
from .debug import check
from .derivatives import (
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linear_transpose,
    linearize,
    stop_gradient,
    value_and_grad,
    vjp,
    where,
)
from .engine import describe_function
from .purity import pure
from .rules import custom_jvp, custom_vjp, custom_vmap, remat, remat_name
from .tracing import Graph, ShapeDtype, eval_shape, make_graph, named_scope, trace

__all__ = [
    "Graph",
    "Mapping",
    "ShapeDtype",
    "all_gather",
    "associative_scan",
    "axis_index",
    "check",
    "cond",
    "custom_jvp",
    "custom_vjp",
    "custom_vmap",
    "debug",
    "describe_function",
    "eval_shape",
    "fori_loop",
    "grad",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linear_transpose",
    "linearize",
    "make_graph",
    "map",
    "named_scope",
    "pmax",
    "pmean",
    "pmin",
    "psum",
    "pure",
    "remat",
    "remat_name",
    "scan",
    "stop_gradient",
    "switch",
    "trace",
    "value_and_grad",
    "vjp",
    "vmap",
    "where",
    "while_loop",
]
