"""What a Laplacian costs in a new process: the first call that is not compiled, and the peak of memory."""

import json
import subprocess
import sys
import threading
import time

from ._harness import repeat
from ._memory import memory


def first_call(name: str) -> float:
    """Return the milliseconds of the first call of an eager program, in a new process."""
    return _child("print_first_call", name)


def peak(name: str, size: str) -> float:
    """Return by how many MiB the memory rises in the θ-gradient of a compiled program, in a new process."""
    return _child("print_peak", name, size)


def _child(what: str, *args: str) -> float:
    call = f"from benchmarks import _laplacian_child as child; child.{what}(*{args!r})"
    done = subprocess.run([sys.executable, "-c", call], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_first_call(name: str) -> None:
    """Print the milliseconds of the first call."""
    from . import laplacian

    run = laplacian.eager_programs()[name]
    start = time.perf_counter()
    run()
    print((time.perf_counter() - start) * 1e3)


def print_peak(name: str, size: str) -> None:
    """Print the rise of memory, after a first call in another thread: a thread keeps the temporaries of its calls."""
    from . import laplacian

    run = laplacian.compiled(name, *laplacian.SIZES[size])
    first = threading.Thread(target=run)
    first.start()
    first.join()
    print(memory(repeat(run)))
