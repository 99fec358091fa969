"""Build native libraries with the sanitizers of the compiler, and run them.

`python sanitized.py random FIRST STEP COUNT` takes COUNT random programs, from the seeds FIRST, FIRST + STEP, …;
`python sanitized.py tables` takes the programs of the tables. The first finding ends the process, after the line that
names the program. AddressSanitizer must be loaded before Python: see `environment`.
"""

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

# Integers wrap around (-fwrapv). Without type information there are no virtual functions to check.
FLAGS = (
    "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    "-fno-sanitize=signed-integer-overflow,vptr",
)  # fmt: skip
TESTS = Path(__file__).parent
Program = tuple[str, Any, tuple[Any, ...], tuple[int, ...]]  # name, function, arguments, donated ones


def environment(folder: Path) -> dict[str, str] | None:
    """Return the environment for this program; None if the compiler has no AddressSanitizer."""
    words = takewhile(lambda word: not word.startswith("-"), compiler_command())
    asked = [*words, "-print-file-name=libasan.so"]
    library = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    if not Path(library).is_absolute():
        return None
    return os.environ | {
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python frees little at its end
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "1",
        "TORCHPURE_CACHE": str(folder),
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "compositions"))),
    }


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


def build_and_run(programs: Iterator[Program], wanted: int | None) -> int:
    """Run programs until they have built `wanted` libraries, and return the number of libraries."""
    built = 0

    def load(source: str, command: tuple[str, ...], *names: str) -> Any:
        nonlocal built
        built += 1
        at = command.index("{source}")
        return load_library(source, (*command[:at], *FLAGS, *command[at:]), *names)

    _choose.load_library = load
    for name, fn, args, donate in programs:
        print(name, flush=True)
        tp.jit(fn, donate=donate)(*args)
        if wanted is not None and built >= wanted:
            break
    return built


def main(kind: str, *numbers: str) -> None:
    os.environ.pop("LD_PRELOAD")  # the compiler runs without it
    warnings.simplefilter("ignore")
    first, step, wanted = map(int, numbers) if numbers else (0, 0, None)
    programs = random_programs(first, step) if kind == "random" else programs_of_tables()
    print(f"built and run: {build_and_run(programs, wanted)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
