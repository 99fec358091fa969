"""The intermediate representation: values (`_values.py`) and kernels (`_kernel.py`).

A `View` is a tensor: shape, strides and offset into a `Buffer`. A `Number` is a tensor that is one number everywhere.
A `Kernel` is a loop nest with statements in its body. An `Opaque` is C++ text with known reads and writes.
"""

from ._kernel import Compute as Compute
from ._kernel import IndirectLoad as IndirectLoad
from ._kernel import Iota as Iota
from ._kernel import Kernel as Kernel
from ._kernel import KernelBuilder as KernelBuilder
from ._kernel import Load as Load
from ._kernel import NameGenerator as NameGenerator
from ._kernel import Opaque as Opaque
from ._kernel import Reduce as Reduce
from ._kernel import Statement as Statement
from ._kernel import Store as Store
from ._kernel import literal as literal
from ._kernel import remap_variables as remap_variables
from ._kernel import rename_arguments as rename_arguments
from ._values import Buffer as Buffer
from ._values import Number as Number
from ._values import UnsupportedError as UnsupportedError
from ._values import Value as Value
from ._values import View as View
from ._values import c_type as c_type
from ._values import dense_strides as dense_strides
from ._values import longest_last as longest_last
from ._values import memory_order as memory_order
from ._values import reshape_view as reshape_view
