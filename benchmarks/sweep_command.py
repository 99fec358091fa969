"""The command `torchpure sweep`: 1,024 members of the article's run, the whole process against its training.

The whole is the process from its start to its end: imports, points, training, results, pictures. The training, which
the command notes, has the trace and the compiled program of the members, from the disk cache after the first process.
Seconds are those of the processor, on one thread, because other work on the machine delays imports most. Python
may write the bytecode of modules, whatever the environment says: an installed package has it.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from ._harness import REPEATS, report

THREADS = 1
WHOLE, TRAINING, ALLOWED = "whole command", "training", "1.5 × training + 3 s"
COMMAND = ["torchpure", "sweep", "2*sin(x + 2*pi)", "--preset", "article", "--steps", "500", "--quiet"]
SPACE = ["--vary", "learning_rate=1e-4:1e-1:log:32", "--vary", "seed=0:32"]


def main() -> None:
    """Run the command several times, after one that fills the cache of programs."""
    rows: dict[str, list[float]] = {WHOLE: [], TRAINING: [], ALLOWED: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(REPEATS + 1):
            whole, training = _run(Path(folder), number)
            print(f"run {number}: whole {whole:.2f} s, training {training:.2f} s")
            if number:
                for name, value in zip(rows, (whole, training, 1.5 * training + 3), strict=True):
                    rows[name].append(value)
    report(
        "sweep command: 1,024 members, 500 steps, one thread; processor seconds",
        rows,
        WHOLE,
        {ALLOWED: 1.0},
        {},
        unit="s",
    )


def _run(folder: Path, number: int) -> tuple[float, float]:
    """Return the processor seconds of a whole command, and of its training."""
    out = folder / f"sweep{number}"
    words = [sys.executable, "-m", *COMMAND, *SPACE, "--out", str(out)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(words, check=True, env=env | {"TORCHPURE_CACHE": str(folder / "cache")})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads((out / "result.json").read_text())
    assert result["members"] == {"done": 1024} and result["steps"] == 512_000
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result["processor_seconds"]
