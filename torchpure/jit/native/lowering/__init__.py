"""Fx nodes → kernels, a family of operations a file."""

from . import _composites as _composites
from . import _elementwise as _elementwise
from . import _gather as _gather
from . import _reductions as _reductions
from . import _scatter as _scatter
from . import _views as _views
from ._blas import LIBRARY_TYPES as LIBRARY_TYPES
from ._blas import library_products as library_products
from ._cpp_formulas import PRELUDE as PRELUDE
from ._matmul import TRANSPOSE as TRANSPOSE
from ._matmul import VECTORS as VECTORS
from ._regions import Branches as Branches
from ._regions import Callback as Callback
from ._regions import Carried as Carried
from ._regions import Loop as Loop
from ._scope import Handler as Handler
from ._scope import Program as Program
from ._scope import Scope as Scope
from ._torch_calls import TORCH as TORCH
from ._torch_calls import foreign as foreign
from ._torch_calls import last_error as last_error
from ._torch_calls import torch_table as torch_table
