"""Stage 3, lowering: fx nodes to kernels, one file per family of operations.

To support a new operation, write a handler and decorate it with `@handles("name")`: `handler(scope, node, *args)`
returns a `View`, a `Number`, or a list of them. Importing this package imports all families, which fills the table.

Elementwise operations need only a C++ formula in `_cpp_formulas.py`. Operations without a handler are decomposed first.
If that does not help, the program calls torch (`_torch_calls.py`).
"""

from . import _composites as _composites
from . import _control_flow as _control_flow
from . import _elementwise as _elementwise
from . import _gather as _gather
from . import _reductions as _reductions
from . import _scatter as _scatter
from . import _view_scatters as _view_scatters
from . import _views as _views
from ._blas import BLAS_TYPES as BLAS_TYPES
from ._blas import gemm_pointers as gemm_pointers
from ._cpp_formulas import PRELUDE as PRELUDE
from ._matmul import TRANSPOSE_HELPERS as TRANSPOSE_HELPERS
from ._matmul import VECTOR_TYPES as VECTOR_TYPES
from ._regions import Branches as Branches
from ._regions import Callback as Callback
from ._regions import CarrySlot as CarrySlot
from ._regions import Loop as Loop
from ._scope import Handler as Handler
from ._scope import ModuleState as ModuleState
from ._scope import Scope as Scope
from ._torch_calls import TORCH_HELPERS as TORCH_HELPERS
from ._torch_calls import last_error as last_error
from ._torch_calls import lower_to_torch_call as lower_to_torch_call
from ._torch_calls import torch_table as torch_table
