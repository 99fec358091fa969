"""JAX-style functional PyTorch: `import torchpure as tp`."""

import importlib as _importlib
import sys as _sys
import typing as _typing

from . import _collector, _missing_names, _start

__version__ = "0.1.0"  # the build reads it here

# without the pause, the collector would scan all of torch and take a quarter of the import time
with _start.ended_by_signals(), _collector.gc_paused():
    from . import checkpoints, errors, estimators, implicit, operators, optim, random, train, tree
    from ._versions import show_versions
    from .checkpoints import restore, save
    from .implicit import custom_fixed_point, custom_root
    from .jit import jit
    from .model import Functional, ensemble, functional, make_functional_fwd, merge, partition, stack, unstack
    from .operators import (
        advection,
        bilaplacian,
        curl,
        directional,
        divergence,
        hessian_diagonal,
        jacobian_diagonal,
        jet,
        laplacian,
        partial,
        partials,
        strain,
    )
    from .train import fit, sweep
    from .transforms import debug
    from .transforms.batching import (
        all_gather,
        all_to_all,
        axis_index,
        axis_size,
        pmax,
        pmean,
        pmin,
        ppermute,
        psum,
        psum_scatter,
        vmap,
    )
    from .transforms.control_flow import associative_scan, cond, fori_loop, map, scan, switch, while_loop
    from .transforms.debug import check
    from .transforms.derivatives import (
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
    from .transforms.purity import pure
    from .transforms.rules import custom_jvp, custom_vjp, custom_vmap, remat, remat_name
    from .transforms.tracing import Graph, ShapeDtype, eval_shape, make_graph, named_scope
    from .tree import ravel as ravel_pytree  # JAX's name for it

if _typing.TYPE_CHECKING:
    from . import parallel, runs, testing
    from .parallel import P, PartitionSpec, device_put, make_mesh, pmap, shard_map
    from .runs import load_run, report
else:
    _LAZY_MODULES = ("parallel", "runs", "testing")
    _LAZY = {"load_run": "runs", "report": "runs"} | dict.fromkeys(
        ("P", "PartitionSpec", "device_put", "make_mesh", "pmap", "shard_map"), "parallel"
    )

    def __getattr__(name: str) -> _typing.Any:
        """Import what programs that only train do not need at its first use; explain missing names."""
        if name in _LAZY_MODULES:
            return _importlib.import_module(f".{name}", __name__)
        if name in _LAZY:
            return getattr(_importlib.import_module(f".{_LAZY[name]}", __name__), name)
        advice = None if name.startswith("_") else _missing_names.remedy(name, (tree, random, optim, train, debug))
        text = f"module {__name__!r} has no attribute {name!r}" + (f": {advice}" if advice else "")
        raise AttributeError(text, name=name, obj=_sys.modules[__name__])

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY, *_LAZY_MODULES})


__all__ = [
    "Functional",
    "Graph",
    "P",
    "PartitionSpec",
    "ShapeDtype",
    "__version__",
    "advection",
    "all_gather",
    "all_to_all",
    "associative_scan",
    "axis_index",
    "axis_size",
    "bilaplacian",
    "check",
    "checkpoints",
    "cond",
    "curl",
    "custom_fixed_point",
    "custom_jvp",
    "custom_root",
    "custom_vjp",
    "custom_vmap",
    "debug",
    "device_put",
    "directional",
    "divergence",
    "ensemble",
    "errors",
    "estimators",
    "eval_shape",
    "fit",
    "fori_loop",
    "functional",
    "grad",
    "hessian",
    "hessian_diagonal",
    "implicit",
    "jacfwd",
    "jacobian_diagonal",
    "jacrev",
    "jet",
    "jit",
    "jvp",
    "laplacian",
    "linear_transpose",
    "linearize",
    "load_run",
    "make_functional_fwd",
    "make_graph",
    "make_mesh",
    "map",
    "merge",
    "named_scope",
    "operators",
    "optim",
    "parallel",
    "partial",
    "partials",
    "partition",
    "pmap",
    "pmax",
    "pmean",
    "pmin",
    "ppermute",
    "psum",
    "psum_scatter",
    "pure",
    "random",
    "ravel_pytree",
    "remat",
    "remat_name",
    "report",
    "restore",
    "runs",
    "save",
    "scan",
    "shard_map",
    "show_versions",
    "stack",
    "stop_gradient",
    "strain",
    "sweep",
    "switch",
    "testing",
    "train",
    "tree",
    "unstack",
    "value_and_grad",
    "vjp",
    "vmap",
    "where",
    "while_loop",
]
