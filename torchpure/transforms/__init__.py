"""Functions of functions: derivatives and vectorisation."""

from ._describe import describe_function as describe_function
from ._grad import grad as grad
from ._grad import value_and_grad as value_and_grad
from ._jacobian import hessian as hessian
from ._jacobian import jacfwd as jacfwd
from ._jacobian import jacrev as jacrev
from ._jacobian import jvp as jvp
from ._jacobian import vjp as vjp
from ._pure import pure as pure
from ._vmap import vmap as vmap
