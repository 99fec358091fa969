"""C++ sources to shared libraries.

`_toolchain.py` knows the command of the compiler. `_disk_cache.py` keeps what it made, in the folder that `_folder.py`
chooses. `_load.py` loads it.
"""

from ._disk_cache import CompilerError, find_file, key_of, store_file
from ._folder import cache_folder
from ._load import load_library
from ._toolchain import compiler_command

__all__ = ["CompilerError", "cache_folder", "compiler_command", "find_file", "key_of", "load_library", "store_file"]
