"""The intermediate representation: values (`_values.py`) and kernels (`_kernel.py`).

A `View` is a tensor: shape, strides and offset into a `Buffer`. A `Number` is a tensor that is one number everywhere.
A `Kernel` is a loop nest with statements in its body. An `Opaque` is C++ text with known reads and writes.
"""

from ._describe import describe_items
from ._kernel import (
    Compute,
    IndirectLoad,
    Iota,
    Kernel,
    KernelBuilder,
    Load,
    NameGenerator,
    Opaque,
    Reduce,
    Statement,
    Store,
    literal,
    loop_heads,
    remap_variables,
    rename_arguments,
)
from ._values import (
    Buffer,
    Number,
    UnsupportedError,
    Value,
    View,
    c_type,
    dense_strides,
    layout_strides,
    longest_last,
    memory_order,
    reshape_view,
)

__all__ = [
    "Buffer",
    "Compute",
    "IndirectLoad",
    "Iota",
    "Kernel",
    "KernelBuilder",
    "Load",
    "NameGenerator",
    "Number",
    "Opaque",
    "Reduce",
    "Statement",
    "Store",
    "UnsupportedError",
    "Value",
    "View",
    "c_type",
    "dense_strides",
    "describe_items",
    "layout_strides",
    "literal",
    "longest_last",
    "loop_heads",
    "memory_order",
    "remap_variables",
    "rename_arguments",
    "reshape_view",
]
