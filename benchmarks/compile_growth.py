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
from ._harness import REPEATS, repeat, report
from ._memory import memory

THREADS = (1, 2)
FIGURE = "compile growth"
OURS, EAGER, COMPILE, JAX = "torchpure", "eager", "torch.compile", "JAX"
DISK, COMPILE_DISK, JAX_DISK = (f"{name}, disk cache" for name in (OURS, COMPILE, JAX))
RUN_BARS = {EAGER: 0.95, COMPILE: 0.95, JAX: 0.6}
MEMORY_BARS = {COMPILE: 1.0}
COMPILE_BARS = {COMPILE: 0.25, JAX: 2.0}
DISK_BARS = {COMPILE_DISK: 0.7, JAX_DISK: 1.5}
SETTINGS = {
    OURS: "jit of value_and_grad, empty caches",
    DISK: "a second process with the first one's TORCHPURE_CACHE",
    EAGER: "value_and_grad of torchpure; for modules, forward and backward of torch",
    COMPILE: "the loss of the module compiled, then backward; Burgers: grad_and_value compiled. Empty caches",
    COMPILE_DISK: "a second process with the first one's TORCHINDUCTOR_CACHE_DIR",
    JAX: "jit of value_and_grad, no disk cache",
    JAX_DISK: "a second process with JAX's persistent cache, which keeps every program",
}
ALWAYS_KEPT = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def main() -> None:
    """Measure every case and every peer, each in a new process."""
    from ._programs import CASES

    for case in CASES:
        if os.environ.get("TORCHPURE_BENCH_CASES", "") in case:
            measure(case)


def measure(case: str) -> None:
    """Measure one case, and print its tables."""
    others = [EAGER, COMPILE, *([JAX] if case.startswith("Burgers") and have("jax") else [])]
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            for name in (OURS, *others):
                found.setdefault(name, []).append(_child(case, name, folder))
                if name != EAGER:
                    found.setdefault(f"{name}, disk cache", []).append(_from_disk(case, name, folder))
    _report(case, found)


def _report(case: str, found: dict[str, list[dict[str, float]]]) -> None:
    def column(names: tuple[str, ...], figure: str, factor: float) -> dict[str, list[float]]:
        return {name: [one[figure] * factor for one in found[name]] for name in names if name in found}

    started, again = (OURS, COMPILE, JAX), (DISK, COMPILE_DISK, JAX_DISK)
    report(f"{FIGURE}, compile: {case}", column(started, "compile", 1e6), OURS, COMPILE_BARS, SETTINGS)
    report(f"{FIGURE}, from the disk cache: {case}", column(again, "compile", 1e6), DISK, DISK_BARS, SETTINGS)
    report(f"{FIGURE}, run: {case}", column((OURS, EAGER, COMPILE, JAX), "run", 1e6), OURS, RUN_BARS, SETTINGS)
    memory = column((OURS, EAGER, COMPILE, JAX), "memory", 1.0)
    report(f"{FIGURE}, memory of a call: {case}", memory, OURS, MEMORY_BARS, SETTINGS, "MiB")


def _from_disk(case: str, peer: str, folder: str) -> dict[str, float]:
    """Measure a process that finds the program on disk. JAX writes there only if it is told to: one more process."""
    if peer != JAX:
        return _child(case, peer, folder)
    kept = ALWAYS_KEPT | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/jax"}
    _child(case, peer, folder, kept)
    return _child(case, peer, folder, kept)


def _child(case: str, peer: str, folder: str, settings: dict[str, str] | None = None) -> dict[str, float]:
    caches = {"TORCHPURE_CACHE": f"{folder}/torchpure", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}
    call = f"from benchmarks.compile_growth import child; child({case!r}, {peer!r})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", call],
        env=os.environ | caches | (settings or {}),
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def child(case: str, peer: str) -> None:
    """Print the CPU seconds of the first call, the median seconds of later calls, and the MiB that a call takes."""
    from ._programs import CASES

    if peer == JAX:
        import jax  # noqa: F401 each library's own import is not counted

    call = _call(CASES[case](), peer)
    before = _cpu_seconds()
    call()
    compiled = _cpu_seconds() - before
    print(json.dumps({"compile": compiled, "run": _median_seconds(call), "memory": memory(repeat(call))}))


def _call(case: Any, peer: str) -> Callable[[], Any]:
    import torch

    import torchpure as tp

    if peer == JAX:
        import jax

        fn, args = case.by_jax()
        compiled = jax.jit(fn)
        return lambda: jax.block_until_ready(compiled(*args))
    if peer == OURS:
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
