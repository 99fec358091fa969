"""Stage 3, lowering: fx nodes to kernels, one file per family of operations.

To support a new operation, write a handler and decorate it with `@handles("name")`: `handler(scope, node, *args)`
returns a `View`, a `Number`, or a list of them. Importing this package imports all families, which fills the table.

Elementwise operations need only a C++ formula in `_cpp_formulas.py`. Operations without a handler are decomposed first.
If that does not help, the program calls torch (`_torch_calls.py`).
"""

from . import _composites, _control_flow, _elementwise, _gather, _reductions, _scatter, _view_scatters, _views
from ._blas import BLAS_TYPES
from ._cpp_formulas import PRELUDE
from ._matmul import TRANSPOSE_HELPERS, VECTOR_TYPES
from ._regions import Branches, Callback, CarrySlot, Loop
from ._scope import Handler, ModuleState, Scope, program_outputs
from ._torch_calls import (
    held_name,
    last_error,
    lower_to_torch_call,
    store_results,
    torch_table,
)
from ._torch_library import gemm_pointers, parallel_for_pointer

FAMILIES = (_composites, _control_flow, _elementwise, _gather, _reductions, _scatter, _view_scatters, _views)

__all__ = [
    "FAMILIES",
    "BLAS_TYPES",
    "Branches",
    "Callback",
    "CarrySlot",
    "Handler",
    "Loop",
    "ModuleState",
    "PRELUDE",
    "Scope",
    "TRANSPOSE_HELPERS",
    "VECTOR_TYPES",
    "gemm_pointers",
    "held_name",
    "last_error",
    "lower_to_torch_call",
    "parallel_for_pointer",
    "program_outputs",
    "store_results",
    "torch_table",
]
