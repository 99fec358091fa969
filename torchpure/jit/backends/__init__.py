"""Who compiles a program: chooser, inductor, interpreter, Python loops, the cache on disk."""

from ._choose import compile_native as compile_native
from ._choose import compile_program as compile_program
from ._choose import compile_without_native as compile_without_native
from ._disk_cache import CompilerError as CompilerError
