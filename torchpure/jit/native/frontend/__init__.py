"""Stage 1, frontend: what the generator accepts, and what it refuses.

`_decompose.py` rewrites a program with fewer kinds of operations. `_mutation.py` finds in-place operations.
`_unsupported.py` finds nodes that torch itself must run.
"""

from ._decompose import decompose_program as decompose_program
from ._mutation import is_inplace_view as is_inplace_view
from ._mutation import mutated_nodes as mutated_nodes
from ._mutation import mutates_argument as mutates_argument
from ._unsupported import has_complex_argument as has_complex_argument
from ._unsupported import selects_from_empty as selects_from_empty
