"""C++ sources to shared libraries: the compiler command (`_toolchain.py`), and the cache on disk (`_disk_cache.py`)."""

from ._disk_cache import CompilerError, build_library, find_file, key_of, store_file
from ._toolchain import compiler_command

__all__ = ["CompilerError", "build_library", "compiler_command", "find_file", "key_of", "store_file"]
