"""JAX-style functional PyTorch: `import torchpure as tp`."""

import importlib as _importlib
import typing as _typing

from . import _collector

__version__ = "0.1.0"  # the build reads it here

# without the pause, the collector would scan all of torch and take a quarter of the import time
with _collector.gc_paused():
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
    from .transforms import debug as debug
    from .transforms.batching import all_gather as all_gather
    from .transforms.batching import axis_index as axis_index
    from .transforms.batching import pmax as pmax
    from .transforms.batching import pmean as pmean
    from .transforms.batching import pmin as pmin
    from .transforms.batching import psum as psum
    from .transforms.batching import vmap as vmap
    from .transforms.control_flow import associative_scan as associative_scan
    from .transforms.control_flow import cond as cond
    from .transforms.control_flow import fori_loop as fori_loop
    from .transforms.control_flow import map as map
    from .transforms.control_flow import scan as scan
    from .transforms.control_flow import switch as switch
    from .transforms.control_flow import while_loop as while_loop
    from .transforms.debug import check as check
    from .transforms.derivatives import grad as grad
    from .transforms.derivatives import hessian as hessian
    from .transforms.derivatives import jacfwd as jacfwd
    from .transforms.derivatives import jacrev as jacrev
    from .transforms.derivatives import jvp as jvp
    from .transforms.derivatives import linear_transpose as linear_transpose
    from .transforms.derivatives import linearize as linearize
    from .transforms.derivatives import stop_gradient as stop_gradient
    from .transforms.derivatives import value_and_grad as value_and_grad
    from .transforms.derivatives import vjp as vjp
    from .transforms.derivatives import where as where
    from .transforms.purity import pure as pure
    from .transforms.rules import custom_jvp as custom_jvp
    from .transforms.rules import custom_vjp as custom_vjp
    from .transforms.rules import custom_vmap as custom_vmap
    from .transforms.rules import remat as remat
    from .transforms.rules import remat_name as remat_name
    from .transforms.tracing import Graph as Graph
    from .transforms.tracing import ShapeDtype as ShapeDtype
    from .transforms.tracing import eval_shape as eval_shape
    from .transforms.tracing import make_graph as make_graph
    from .transforms.tracing import named_scope as named_scope
    from .tree import ravel as ravel_pytree  # noqa: F401 JAX's name for it

if _typing.TYPE_CHECKING:
    from . import testing as testing
else:

    def __getattr__(name: str) -> _typing.Any:
        """Import `testing` when it is first asked for: programs that only train need not wait for it."""
        if name == "testing":
            return _importlib.import_module(".testing", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), "testing"})
