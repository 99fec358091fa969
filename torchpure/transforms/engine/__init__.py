"""Levels of torch's transforms, memory of results, function modes and error messages, over `torchpure/_torch/`."""

from ._autocast import active_autocasts, clear_autocast_cache, with_autocasts
from ._diagnose import AUTOGRAD, DATA_DEPENDENT, INDETERMINATE, SPARSE, explain, refuse_nested, validation_advice
from ._dual_level import in_dual_level
from ._expose import expose, expose_all
from ._inner_levels import InnerLevels, inner_levels
from ._levels import (
    allow_requires_grad,
    current_level,
    functorch,
    innermost,
    is_differentiated,
    is_variable,
    level_kinds,
    mapped_levels,
    stale,
    without_function_modes,
    without_transforms,
)
from ._light_modes import LightFakeMode, LightProxyMode, empty_like_memory, is_plain, track_fakes
from ._memory import batched_like, dense, materialized, unaliased, with_batch_dims_of, without_zerotensors
from ._open_level import (
    as_dual,
    backward,
    forward_derivatives_are_on,
    has_tangent,
    in_first_gradient,
    reruns,
    run_grad,
    run_jvp,
    run_vmap,
    torch_jvp,
    torch_vjp,
)
from ._outermost import OUTERMOST, depends_on, graph_leaves, in_outermost_grad
from ._shared_writes import SHARED_WRITE, is_shared_write, retry_with_batched_carry, writes_shared
from ._source_info import argument_paths, describe_function, describe_program, user_line
from ._tensor_index import TensorIndexing
from ._zero_tangents import like_primals, traced_zeros

__all__ = [
    "AUTOGRAD",
    "DATA_DEPENDENT",
    "INDETERMINATE",
    "InnerLevels",
    "LightFakeMode",
    "LightProxyMode",
    "OUTERMOST",
    "SHARED_WRITE",
    "SPARSE",
    "TensorIndexing",
    "active_autocasts",
    "allow_requires_grad",
    "argument_paths",
    "as_dual",
    "backward",
    "batched_like",
    "clear_autocast_cache",
    "current_level",
    "dense",
    "depends_on",
    "describe_function",
    "describe_program",
    "empty_like_memory",
    "explain",
    "expose",
    "expose_all",
    "forward_derivatives_are_on",
    "functorch",
    "graph_leaves",
    "has_tangent",
    "in_dual_level",
    "in_first_gradient",
    "in_outermost_grad",
    "inner_levels",
    "innermost",
    "is_differentiated",
    "is_plain",
    "is_shared_write",
    "is_variable",
    "level_kinds",
    "like_primals",
    "mapped_levels",
    "materialized",
    "refuse_nested",
    "reruns",
    "retry_with_batched_carry",
    "run_grad",
    "run_jvp",
    "run_vmap",
    "stale",
    "torch_jvp",
    "torch_vjp",
    "traced_zeros",
    "track_fakes",
    "unaliased",
    "user_line",
    "validation_advice",
    "with_autocasts",
    "with_batch_dims_of",
    "without_function_modes",
    "without_transforms",
    "without_zerotensors",
    "writes_shared",
]
