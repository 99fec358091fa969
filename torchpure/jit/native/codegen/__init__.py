"""Stage 5, codegen: kernels to C++.

`_translation_unit.py` is the entry: it runs lowering and optimize, then writes the C++ function `run`. `_statements.py`
writes scopes and loops. `_loop_nest.py` writes one kernel. `_parallel.py` decides what threads share.
"""

from ._translation_unit import MAX_OWN_WORKSPACE, TranslationUnit, generate_cpp, lower_program

__all__ = ["MAX_OWN_WORKSPACE", "TranslationUnit", "generate_cpp", "lower_program"]
