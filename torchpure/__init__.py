"""JAX-style functional PyTorch: `import torchpure as tp`."""

from . import _collector

# the collector would go through all of torch in the meantime, a quarter of the time that this takes
with _collector.uncollected():
    from . import errors as errors
    from . import optim as optim
    from . import random as random
    from . import train as train
    from . import tree as tree
    from .jit import jit as jit
    from .model import Functional as Functional
    from .model import ensemble as ensemble
    from .model import functional as functional
    from .model import make_functional_fwd as make_functional_fwd
    from .model import merge as merge
    from .model import partition as partition
    from .model import stack as stack
    from .model import unstack as unstack
    from .train import fit as fit
    from .train import sweep as sweep
    from .transforms import Graph as Graph
    from .transforms import ShapeDtype as ShapeDtype
    from .transforms import all_gather as all_gather
    from .transforms import associative_scan as associative_scan
    from .transforms import axis_index as axis_index
    from .transforms import check as check
    from .transforms import cond as cond
    from .transforms import custom_jvp as custom_jvp
    from .transforms import custom_vjp as custom_vjp
    from .transforms import custom_vmap as custom_vmap
    from .transforms import debug as debug
    from .transforms import eval_shape as eval_shape
    from .transforms import fori_loop as fori_loop
    from .transforms import grad as grad
    from .transforms import hessian as hessian
    from .transforms import jacfwd as jacfwd
    from .transforms import jacrev as jacrev
    from .transforms import jvp as jvp
    from .transforms import linear_transpose as linear_transpose
    from .transforms import linearize as linearize
    from .transforms import make_graph as make_graph
    from .transforms import map as map
    from .transforms import named_scope as named_scope
    from .transforms import pmax as pmax
    from .transforms import pmean as pmean
    from .transforms import pmin as pmin
    from .transforms import psum as psum
    from .transforms import pure as pure
    from .transforms import remat as remat
    from .transforms import remat_name as remat_name
    from .transforms import scan as scan
    from .transforms import stop_gradient as stop_gradient
    from .transforms import switch as switch
    from .transforms import value_and_grad as value_and_grad
    from .transforms import vjp as vjp
    from .transforms import vmap as vmap
    from .transforms import where as where
    from .transforms import while_loop as while_loop
    from .tree import ravel as ravel_pytree  # noqa: F401 JAX's name for it
