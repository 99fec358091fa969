"""Backends compile programs: a chooser, the native generator, inductor, an interpreter, Python loops, a disk cache.

`_choose.py` decides. `_protocol.py` says what every backend returns. The native generator is in `jit/native`.
"""

from torchpure._cpp import CompilerError

from ._choose import compile_native, compile_program, compile_without_native
from ._protocol import CompiledProgram

__all__ = ["CompiledProgram", "CompilerError", "compile_native", "compile_program", "compile_without_native"]
