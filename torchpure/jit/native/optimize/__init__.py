"""Stage 4, optimize: kernels to fewer kernels, and where memory lies.

`plan_memory` drives this stage. In a scope, it runs fusion (`_fusion.py`), accumulation of products (`_accumulate.py`),
the split of long reductions (`_split_reductions.py`), and the placement of temporaries (`_memory_plan.py`). In a loop,
it also makes carries update in place (`_inplace_carry.py`). Collapsing of loops (`_collapse_loops.py`) runs
later, when a kernel is written as C++.
"""

from ._collapse_loops import collapse_loops
from ._cost import MIN_SHARED_COST, kernel_cost
from ._donated import choose_donated
from ._memory_plan import plan_memory

__all__ = ["MIN_SHARED_COST", "choose_donated", "collapse_loops", "kernel_cost", "plan_memory"]
