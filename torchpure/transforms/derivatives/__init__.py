"""Derivatives: grad, jvp, vjp, Jacobians, linearize, stop_gradient, where."""

from ._grad import grad as grad
from ._grad import value_and_grad as value_and_grad
from ._jacobian import hessian as hessian
from ._jacobian import jacfwd as jacfwd
from ._jacobian import jacrev as jacrev
from ._jvp import jvp as jvp
from ._linearize import linear_transpose as linear_transpose
from ._linearize import linearize as linearize
from ._stop_gradient import stop_gradient as stop_gradient
from ._vjp import vjp as vjp
from ._where import where as where
