"""Compiled programs on disk: one file per program, named by what it was made from and by its content.

A name is `<key>-<digest>.so`, or `.py` for the output of inductor. The key is a hash of everything that the file
depends on. The digest is a hash of its bytes: if a file is damaged, its digest is wrong, and it is made again. A file
appears under its name only when it is complete, so several processes may share a folder. Nothing is unpickled.
"""

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path

import torch

from torchpure.errors import InputError

from ._folder import cache_folder, process_folder

SIZE_VARIABLE = "TORCHPURE_CACHE_MB"
_SUFFIXES = frozenset({".so", ".py"})
_DEFAULT_MEGABYTES = 512
_MIN_AGE = 60.0  # seconds; a younger file stays, because another process may be about to load it
_MIN_FREE_BYTES = 1 << 24  # with less, a compiler may fail because of the disk
_STALE_BUILD_AGE = 3600.0  # seconds; an older build folder belongs to a killed process


class CompilerError(RuntimeError):
    """A C++ compiler is missing, or it fails."""


def build_library(source: str, command: Sequence[str]) -> Path:
    """Return a shared library of this C++ source: from disk, or made by `command`.

    In the command, `{source}` and `{library}` stand for the two files.

    Raises:
        CompilerError: there is no such compiler, or it fails.
        InputError: the maximal size of the folder is not a number.
    """
    key = key_of(source, *command)
    return find_file(key, ".so") or store_file(key, ".so", lambda made: _compile(source, made, command))


def find_file(key: str, suffix: str) -> Path | None:
    """Return the undamaged file for this key, or None."""
    for file in cache_folder().glob(f"{key}-*{suffix}"):
        if _is_intact(file):
            return file
        with suppress(OSError):  # a folder in its place, or a disk that cannot be written
            file.unlink(missing_ok=True)
    return None


def store_file(key: str, suffix: str, make: Callable[[Path], object]) -> Path:
    """Add a file that `make` writes, and remove the oldest files if the folder is too large.

    If the disk is full, the file goes to a temporary folder of the process.
    """
    folder, max_bytes = cache_folder(), _size_limit()
    try:
        file = _write_file(folder, key, suffix, make)
    except OSError:
        return _write_file(process_folder(), key, suffix, make)
    except CompilerError:
        if folder == process_folder() or not _is_full(folder):
            raise
        return _write_file(process_folder(), key, suffix, make)
    with suppress(OSError):
        prune(folder, max_bytes)
    return file


def _is_full(folder: Path) -> bool:
    """Return whether a disk is full: the linker, which fails then, does not say so in one way."""
    return shutil.disk_usage(folder).free < _MIN_FREE_BYTES


def _write_file(folder: Path, key: str, suffix: str, make: Callable[[Path], object]) -> Path:
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-", ignore_cleanup_errors=True) as name:
        build = Path(name) / f"program{suffix}"
        make(build)
        build.chmod(0o600)
        file = folder / f"{key}-{_digest(build)}{suffix}"
        build.replace(file)
    return file


def prune(folder: Path, max_bytes: int) -> None:
    """Remove the least recently used files until `max_bytes` are left, and the leftovers of killed processes."""
    now, files = time.time(), []
    for file in folder.iterdir():
        try:
            found = file.stat()
        except OSError:  # another process has removed it
            continue
        if file.name.startswith("build-"):
            if now - found.st_mtime > _STALE_BUILD_AGE:
                shutil.rmtree(file, ignore_errors=True)
        elif file.suffix in _SUFFIXES:
            files.append((found.st_mtime, found.st_size, file))
    total = sum(size for _, size, _ in files)
    for used, size, file in sorted(files):
        if total <= max_bytes or now - used < _MIN_AGE:
            break
        file.unlink(missing_ok=True)
        total -= size


def _size_limit() -> int:
    text = os.environ.get(SIZE_VARIABLE, str(_DEFAULT_MEGABYTES))
    try:
        return int(float(text) * 2**20)
    except (ValueError, OverflowError):
        raise InputError(f"jit: {SIZE_VARIABLE} must be a number of megabytes, got {text!r:.40}") from None


def _compile(source: str, made: Path, command: Sequence[str]) -> None:
    text = made.with_suffix(".cpp")
    text.write_text(source)
    _run([part.replace("{source}", str(text)).replace("{library}", str(made)) for part in command])
    if not made.is_file():
        raise CompilerError(f"jit: {command[0]} made no library")


def _run(command: Sequence[str]) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603 no shell
    except OSError as error:
        raise CompilerError(f"jit: the C++ compiler {command[0]} does not start: {error}") from error
    if ended.returncode:
        raise CompilerError(f"jit: the C++ compiler {command[0]} fails: {ended.stderr.strip()[:2000]}")
    return ended.stdout


def _is_intact(file: Path) -> bool:
    """Tell whether a file matches the digest in its name, and mark it as used."""
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            return False
        if _digest(file) != file.stem.rpartition("-")[2]:
            return False
    except OSError:  # another process has removed it
        return False
    with suppress(OSError):
        os.utime(file)
    return True


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def key_of(source: str, compiler: str, *flags: str) -> str:
    """Return a hash of a source, the compiler, its flags, the processor, and the versions of torch and this library.

    Raises:
        CompilerError: there is no such compiler.
    """
    words = tuple(takewhile(lambda part: not part.startswith("-"), (compiler, *flags)))  # ccache g++
    parts = (
        source,
        compiler,
        *flags,
        _identify_compiler(words),
        _processor_features(),
        torch.__version__,
        version("torchpure"),
    )
    return hashlib.sha256("\0".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def _identify_compiler(words: tuple[str, ...]) -> str:
    """Describe the compiler behind the words of a command, such as `g++` or `ccache g++`."""
    found = [shutil.which(word) for word in words]
    if None in found:
        raise CompilerError(f"jit: there is no C++ compiler {words[found.index(None)]}.")
    files = tuple((one.st_mtime_ns, one.st_size) for one in (Path(str(program)).stat() for program in found))
    return f"{_version(str(found[0]), files[0])} {files[1:]}"


@lru_cache(maxsize=16)
def _version(compiler: str, _file: tuple[int, int]) -> str:
    return _run([compiler, "--version"])


@lru_cache(maxsize=1)
def _processor_features() -> str:
    """Describe the instruction sets of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = [line for line in lines if line.lower().startswith(("flags", "features", "model name"))]
    return "\n".join([platform.machine(), platform.processor(), *sorted(set(told))])
