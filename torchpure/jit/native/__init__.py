"""Small programs and loops, as one function of C++."""

from ._compile import NativeProgram as NativeProgram
from ._compile import compile_cpp as compile_cpp
from .frontend import has_complex_argument as has_complex_argument
from .frontend import selects_from_empty as selects_from_empty
from .ir import UnsupportedError as UnsupportedError
