"""Who compiles a program: chooser, inductor, interpreter, Python loops, the cache on disk."""

from ._choose import compiled as compiled
from ._choose import native as native
from ._choose import without_native as without_native
from ._disk_cache import CompilerError as CompilerError
