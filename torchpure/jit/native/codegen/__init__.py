"""Stage 5, codegen: kernels to C++, and the command that compiles it.

`_translation_unit.py` is the entry: it runs lowering and optimize, then writes the C++ function `run`. `_statements.py`
writes scopes and loops. `_loop_nest.py` writes one kernel. `_toolchain.py` knows compilers and flags.
"""

from ._toolchain import compiler_command
from ._translation_unit import TranslationUnit, generate_cpp

__all__ = ["TranslationUnit", "compiler_command", "generate_cpp"]
