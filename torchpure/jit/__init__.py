"""`jit`: trace a function once, then run it as one compiled program.

The path of a call, from the top file to the bottom:

- `_jit.py` looks the call up among the programs that exist (`_argnums.py`, `_cache_key.py`).
- A new call is traced to an fx graph (`_trace.py`).
- The graph runs through the passes (`passes/`), and a backend compiles it (`backends/`, `native/`).
- The result is an executable (`_executable.py`). It also handles donated arguments (`_donation.py`).
- `_vmapped.py` runs `jit(vmap(fn))` in chunks of members. `_lowered.py` shows a program and its cost.
"""

from ._jit import Jitted, jit
from ._lowered import Cost, Lowered

__all__ = ["Cost", "Jitted", "Lowered", "jit"]
