"""Stage 4, optimize: kernels to fewer kernels, and where memory lies.

`plan_memory` drives this stage. In a scope, it runs fusion (`_fusion.py`), accumulation of products (`_accumulate.py`),
and the placement of temporaries (`_memory_plan.py`). In a loop, it also makes carries update in place
(`_inplace_carry.py`). Collapsing of loops (`_collapse_loops.py`) runs later, when a kernel is written as C++.
"""

from ._collapse_loops import collapse_loops
from ._memory_plan import plan_memory

__all__ = ["collapse_loops", "plan_memory"]
