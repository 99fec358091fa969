"""Derivatives: grad, jvp, vjp, Jacobians, linearize, stop_gradient, where."""

from ._grad import grad, value_and_grad
from ._jacobian import hessian, jacfwd, jacrev
from ._jvp import jvp
from ._linearize import linear_transpose, linearize
from ._stop_gradient import stop_gradient
from ._variables import Argnums, Variables
from ._vjp import vjp
from ._where import where

__all__ = [
    "Argnums",
    "Variables",
    "grad",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linear_transpose",
    "linearize",
    "stop_gradient",
    "value_and_grad",
    "vjp",
    "where",
]
