"""Build native libraries with the sanitizers of the compiler, and run them.

`python sanitized.py random FIRST STEP COUNT` takes COUNT random programs, from the seeds FIRST, FIRST + STEP, …;
`python sanitized.py tables` takes the programs of the tables; `python sanitized.py broken NAME` takes a wrong one. The first finding ends the process, after the line that
names the program. AddressSanitizer must be loaded before Python: see `environment`.
"""

import ctypes
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import cases_programs
import native_programs
import special_values

import torchpure as tp
from torchpure._cpp import compiler_command, load_library
from torchpure.jit.backends import _choose

# Integers wrap around (-fwrapv), and without type information there are no virtual functions to check. GCC leaves casts of
# large floats to integers out of `undefined`: torch has the same casts.
FLAGS = (
    "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    "-fno-sanitize=signed-integer-overflow,vptr",
)  # fmt: skip
TESTS = Path(__file__).parent
Program = tuple[str, Any, tuple[Any, ...], tuple[int, ...]]  # name, function, arguments, donated ones


def environment(folder: Path) -> dict[str, str] | None:
    """Return the environment for this program; None if the compiler has no AddressSanitizer."""
    words = [*takewhile(lambda word: not word.startswith("-"), compiler_command())]
    # the second, because AddressSanitizer looks for the functions that throw when it starts
    libraries = [_library(words, name) for name in ("libasan.so", "libstdc++.so.6")]
    if not all(Path(library).is_absolute() for library in libraries):
        return None
    return os.environ | {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python frees little at its end
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "1",
        "TORCHPURE_CACHE": str(folder),
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "compositions"))),
    }


def _library(compiler: list[str], name: str) -> str:
    asked = [*compiler, f"-print-file-name={name}"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def random_programs(first: int, step: int) -> Iterator[Program]:
    """Yield programs of one chain each, every second one in a loop; none that rounds to half precision (inductor)."""
    for seed in count(first, step):
        case = special_values.case(seed, chains=1)
        if case.names and not any(f"= {half}(" in case.names[0] for half in special_values.HALVES):
            run = special_values.in_scan(case.run) if seed // step % 2 else case.run
            yield f"seed {seed}: {case.names[0]}", run, case.inputs, ()


def programs_of_tables() -> Iterator[Program]:
    for name, (fn, *args) in (native_programs.PROGRAMS | native_programs.BY_TORCH).items():
        yield name, fn, tuple(args), ()
    for name, make in cases_programs.PROGRAMS.items():
        program = make()
        if not program.not_native:
            yield name, program.fn, program.args, program.donate


def load(source: str, command: tuple[str, ...], *names: str) -> ctypes.CDLL:
    """Load the library of a source, compiled with the sanitizers."""
    at = command.index("{source}")
    return load_library(source, (*command[:at], *FLAGS, *command[at:]), *names)


def build_and_run(programs: Iterator[Program], wanted: float) -> int:
    """Run programs until they have built `wanted` libraries, and return the number of libraries."""
    built = 0

    def counted(*args: Any) -> ctypes.CDLL:
        nonlocal built
        built += 1
        return load(*args)

    _choose.load_library = counted
    for name, fn, args, donate in programs:
        print(name, flush=True)
        tp.jit(fn, donate=donate)(*args)
        if built >= wanted:
            break
    return built


BROKEN = {
    "heap-buffer-overflow": "int run(int n) { int *a = (int *)malloc(4 * n); int found = a[n]; free(a); return found; }",
    "shift exponent": "int run(int n) { return 1 << (n + 61); }",
}  # what a sanitizer says -> a function that it stops


def main(kind: str, *words: str) -> None:
    os.environ.pop("LD_PRELOAD")  # the compiler runs without it
    warnings.simplefilter("ignore")
    if kind == "broken":
        load(f'#include <stdlib.h>\nextern "C" {BROKEN[words[0]]}', compiler_command(), "run").run(3)
    elif kind == "tables":
        print(f"built and run: {build_and_run(programs_of_tables(), math.inf)}")
    else:
        first, step, wanted = map(int, words)
        print(f"built and run: {build_and_run(random_programs(first, step), wanted)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
