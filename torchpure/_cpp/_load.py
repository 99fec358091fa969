"""Load the library of a program, and never keep one that does not load."""

import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from ._disk_cache import CompilerError, build_library

_ELF_HEADER = 64  # bytes


def load_library(source: str, command: Sequence[str], *names: str) -> ctypes.CDLL:
    """Return the loaded library of a C++ source, which must define these names.

    Raises:
        CompilerError: there is no such compiler, it fails, or it writes what does not load.
        InputError: the maximal size of the cache is not a number.
    """
    for is_last in (False, True):  # the first may be a file of an earlier compiler, which loaded there
        file = build_library(source, command)
        try:
            return _load(file, names)
        except (OSError, AttributeError) as error:
            file.unlink(missing_ok=True)
            if is_last:
                raise CompilerError(f"jit: the C++ compiler {command[0]} writes what does not load: {error}") from error
    raise AssertionError("unreachable")


def _load(file: Path, names: Sequence[str]) -> ctypes.CDLL:
    if _is_cut(file.read_bytes()):
        raise OSError(f"{file} is cut off")
    try:
        library = ctypes.CDLL(str(file))
    except OSError:
        library = _load_from_memory(file.read_bytes())  # its folder may be mounted without the right to execute
    for name in names:
        getattr(library, name)
    return library


def _is_cut(content: bytes) -> bool:
    """Return whether the end of a library is missing, as on a full disk: the loader would end the process.

    Source: System V ABI, "ELF header" and "Program header", 64 bit.
    """
    if content[:5] != b"\x7fELF\x02" or len(content) < _ELF_HEADER:
        return False  # another format, which the loader checks
    order = "<" if content[5] == 1 else ">"
    segments, sections, size, count, section_size, section_count = struct.unpack_from(f"{order}QQ6xHHHH", content, 32)
    ends = [segments + size * count, sections + section_size * section_count]
    if ends[0] <= len(content):
        places = [segments + size * number for number in range(count)]
        ends += [sum(struct.unpack_from(f"{order}8xQ16xQ", content, place)) for place in places]
    return max(ends) > len(content)


def _load_from_memory(content: bytes) -> ctypes.CDLL:
    """Load a library from a file in memory.

    Its descriptor stays open: the next one must get another name, by which the loader tells libraries apart.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError("its folder may be mounted without the right to execute")
    descriptor = os.memfd_create("torchpure")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    except OSError:
        os.close(descriptor)
        raise
