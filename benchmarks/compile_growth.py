"""How long programs of several sizes compile, and how fast they run: value and gradient of a loss.

Each measurement is a new process with caches of its own. Compile times are CPU seconds, of the process and of the
compilers that it starts, from the first call to its result, imports included. The figure takes hours with all peers:
`TORCHPURE_BENCH_CASES="Burgers"` keeps the cases whose names contain that text.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from ._article import have
from ._harness import REPEATS, report

THREADS = (1, 2)
FIGURE = "compile growth"
OURS, DISK, EAGER = "torchpure", "torchpure, disk cache", "eager"
COMPILE, JAX = "torch.compile", "JAX"
RUN_BARS = {EAGER: 0.95, COMPILE: 0.95, JAX: 0.6}
COMPILE_BARS = {COMPILE: 0.25, JAX: 2.0}
SETTINGS = {
    OURS: "jit of value_and_grad, empty caches",
    DISK: "a second process with the first one's TORCHPURE_CACHE",
    EAGER: "value_and_grad of torchpure; for modules, forward and backward of torch",
    COMPILE: "the loss of the module compiled, then backward; Burgers: grad_and_value compiled. Empty caches",
    JAX: "jit of value_and_grad, no disk cache",
}


def main() -> None:
    """Measure every case and every peer, each in a new process."""
    from ._programs import CASES

    for case in CASES:
        if os.environ.get("TORCHPURE_BENCH_CASES", "") in case:
            measure(case)


def measure(case: str) -> None:
    """Measure one case, and print its tables."""
    peers = [OURS, DISK, EAGER, COMPILE, *([JAX] if case.startswith("Burgers") and have("jax") else [])]
    compiled: dict[str, list[float]] = {name: [] for name in peers if name != EAGER}
    ran: dict[str, list[float]] = {name: [] for name in peers if name != DISK}
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            for name in peers:
                found = _child(case, name, folder)
                if name in compiled:
                    compiled[name].append(found["compile"] * 1e6)
                if name in ran:
                    ran[name].append(found["run"] * 1e6)
    report(f"{FIGURE}, compile: {case}", compiled, OURS, COMPILE_BARS, SETTINGS)
    report(f"{FIGURE}, run: {case}", ran, OURS, RUN_BARS, SETTINGS)


def _child(case: str, peer: str, folder: str) -> dict[str, float]:
    caches = {"TORCHPURE_CACHE": f"{folder}/torchpure", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}
    call = f"from benchmarks.compile_growth import child; child({case!r}, {peer!r})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", call],
        env=os.environ | caches,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def child(case: str, peer: str) -> None:
    """Print the CPU seconds of the first call, and the median seconds of later calls."""
    from ._programs import CASES

    if peer == JAX:
        import jax  # noqa: F401 each library's own import is not counted

    call = _call(CASES[case](), peer)
    before = _cpu_seconds()
    call()
    compiled = _cpu_seconds() - before
    print(json.dumps({"compile": compiled, "run": _median_seconds(call)}))


def _call(case: Any, peer: str) -> Callable[[], Any]:
    import torch

    import torchpure as tp

    if peer == JAX:
        import jax

        fn, args = case.by_jax()
        compiled = jax.jit(fn)
        return lambda: jax.block_until_ready(compiled(*args))
    if peer in {OURS, DISK}:
        fn, args = case.make()
        ours = tp.jit(fn)
        return lambda: ours(*args)
    fn, args, module = case.by_torch()
    if peer == COMPILE:
        fn = torch.compile(fn)
    if module is None:
        return lambda: fn(*args)
    return lambda: torch.autograd.grad(fn(*args), list(module.parameters()))


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _median_seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    for _ in range(3):
        call()
    count = max(int(0.2 / max((time.perf_counter() - start) / 3, 1e-9)), 1)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(count):
            call()
        seconds.append((time.perf_counter() - start) / count)
    return statistics.median(seconds)
