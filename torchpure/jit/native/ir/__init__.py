"""Values and kernels."""

from ._kernel import Builder as Builder
from ._kernel import Compute as Compute
from ._kernel import Counter as Counter
from ._kernel import Kernel as Kernel
from ._kernel import Load as Load
from ._kernel import LoadAt as LoadAt
from ._kernel import Names as Names
from ._kernel import Opaque as Opaque
from ._kernel import Reduce as Reduce
from ._kernel import Statement as Statement
from ._kernel import Store as Store
from ._kernel import literal as literal
from ._kernel import moved as moved
from ._kernel import renamed as renamed
from ._values import Buffer as Buffer
from ._values import Number as Number
from ._values import UnsupportedError as UnsupportedError
from ._values import Value as Value
from ._values import View as View
from ._values import c_type as c_type
from ._values import dense_strides as dense_strides
from ._values import longest_last as longest_last
from ._values import order_of as order_of
from ._values import reshaped as reshaped
