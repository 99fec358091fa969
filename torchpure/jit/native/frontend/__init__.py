"""Stage 1, frontend: what the generator accepts, and what it refuses.

`_decompose.py` rewrites a program with fewer kinds of operations. `_mutation.py` finds in-place operations.
`_unsupported.py` finds nodes that torch itself must run.
"""

from ._decompose import decompose_program
from ._mutation import is_inplace_view, mutated_nodes, mutates_argument
from ._unsupported import has_complex_argument, has_sparse_tensor, selects_from_empty

__all__ = [
    "decompose_program",
    "has_complex_argument",
    "has_sparse_tensor",
    "is_inplace_view",
    "mutated_nodes",
    "mutates_argument",
    "selects_from_empty",
]
