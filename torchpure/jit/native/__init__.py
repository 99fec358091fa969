"""The native backend: compile a program to one C++ function.

Threads of torch's own pool share the large kernels; small kernels run on the calling thread.

A program goes through these stages. Each is a package, and imports only `ir` and the stages before it:

1. `frontend/`: what the generator accepts. It decomposes operations, finds mutations, and names unsupported nodes.
2. `ir/`: the data that the later stages share. Values are buffers, views and numbers. A kernel is a loop nest.
3. `lowering/`: fx nodes to kernels, one file per family of operations. `_scope.py` walks the graph and calls a handler
   per operation.
4. `optimize/`: kernels to fewer kernels (fusion), and where each buffer lies in memory (memory plan).
5. `codegen/`: kernels to C++ text, and which threads share which kernel.

`_compile.py` runs the stages, loads the library, and calls it. Any stage may raise `UnsupportedError`: then
`compile_cpp` returns None, and another backend compiles the program.

Example: `torch.tanh(a * 2).sum(1)` becomes three kernels (multiply, tanh, sum). Fusion makes them one kernel, whose
temporaries stay in registers, so the memory plan has nothing to place.

Where to change what: thresholds are `MIN_TILED` and `MIN_BLAS` in `lowering/_matmul.py`, `MAX_STATEMENTS` in
`optimize/_fusion.py`, `MIN_SHARED_COST` in `optimize/_cost.py`, `MAX_UNROLLED_ITERATIONS` in `codegen/_loop_nest.py`,
and `MAX_INLINE_KERNELS` in `codegen/_functions.py`.
"""

from ._compile import NativeProgram, compile_cpp, is_on_one_thread, on_one_thread
from .frontend import has_complex_argument, has_sparse_tensor, selects_from_empty
from .ir import UnsupportedError

__all__ = [
    "NativeProgram",
    "UnsupportedError",
    "compile_cpp",
    "has_complex_argument",
    "has_sparse_tensor",
    "is_on_one_thread",
    "on_one_thread",
    "selects_from_empty",
]
