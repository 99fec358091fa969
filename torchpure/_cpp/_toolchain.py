"""The toolchain: the command that compiles C++ to a shared library."""

import os
import platform
import shlex
import shutil
import sys
from pathlib import Path

from ._disk_cache import CompilerError

FLAGS = (
    "-std=gnu++17", "-O3", "-march=native", "-fPIC", "-shared", "-fopenmp-simd", "-fno-math-errno", "-fwrapv",
    "-fno-trapping-math", "-fno-exceptions", "-fno-rtti", "-fno-semantic-interposition", "-fno-stack-protector", "-w",
)  # fmt: skip
_VECTOR_DEFINE = '-DVECTOR=__attribute__((simd("notinbranch")))'
_MIN_GLIBC = (2, 35)  # since then libmvec has every function that the prelude declares


def compiler_command() -> tuple[str, ...]:
    """Return the compiler command. It uses vector versions of mathematical functions where the platform has them.

    In the command, `{source}` and `{library}` stand for the two files.

    Raises:
        FileNotFoundError: there is no C++ compiler.
        CompilerError: the variable CXX is not a command.
    """
    chosen = _words(os.environ.get("CXX", ""))  # may be several words, such as `ccache g++`
    found = chosen or [name for name in map(shutil.which, ("g++", "c++", "clang++")) if name][:1]
    if not found:
        raise FileNotFoundError("no C++ compiler")
    end = ("{source}", "-o", "{library}")
    if _has_vector_functions(found[-1]):
        return (*found, *FLAGS, _VECTOR_DEFINE, *end, "-lmvec", "-lm")
    return (*found, *FLAGS, *end, "-lm")


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise CompilerError(f"jit: CXX is not a command of a compiler, {command!r:.80}: {error}.") from error


def _has_vector_functions(compiler: str) -> bool:
    if sys.platform != "linux" or platform.machine() != "x86_64" or "clang" in Path(compiler).name:
        return False
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    return name == "glibc" and tuple(map(int, version.split(".")[:2])) >= _MIN_GLIBC
