"""Time of the first call of the article's whole run: in a warm process, with empty caches, and with a disk cache.

Each case is a new process with its own cache folders. Times begin after `import torch` (`import jax`).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from ._article import POINTS, STEPS, SimpleNN, data, have, jax_train, training
from ._harness import REPEATS, report_limits

THREADS = 1
FIGURE = "compile time"
WARM, EMPTY, DISK = "torchpure, warm process", "torchpure, empty caches", "torchpure, disk cache"
JAX, COMPILE = "JAX, new process", "torch.compile of one step, empty caches"
LIMITS = {WARM: 6.0, EMPTY: 20.0, DISK: 1.5}
SETTINGS = {
    WARM: "another network's run was compiled before in the process; its own is in no cache",
    EMPTY: "new process, TORCHPURE_CACHE and TORCHINDUCTOR_CACHE_DIR empty; with import torchpure",
    DISK: "new process, the caches as the one before left them; with import torchpure",
    JAX: "jit of the whole run with lax.scan and optax, no disk cache; with import optax",
    COMPILE: "fullgraph step of torch.func and a leafwise Adam, TORCHINDUCTOR_CACHE_DIR empty",
}


def main() -> None:
    """Measure each case in new processes."""
    rows: dict[str, list[float]] = {name: [] for name in SETTINGS if have("jax", "optax") or name != JAX}
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            rows[EMPTY].append(_child("first", folder))
            rows[DISK].append(_child("first", folder))
        with tempfile.TemporaryDirectory() as folder:
            rows[WARM].append(_child("second", folder))
        with tempfile.TemporaryDirectory() as folder:
            rows[COMPILE].append(_child("torch", folder))
        if JAX in rows:
            with tempfile.TemporaryDirectory() as folder:
                rows[JAX].append(_child("jax", folder))
    report_limits(f"{FIGURE}: {STEPS} steps, {POINTS} points, 5 neurons, Adam", rows, LIMITS, SETTINGS)


def _child(case: str, folder: str) -> float:
    caches = {"TORCHPURE_CACHE": f"{folder}/torchpure", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}
    before = {"jax": "torchpure, jax", "torch": "torchpure"}.get(case, "torch")
    lines = (
        f"import time, {before}, benchmarks._harness; start = time.perf_counter()",
        "from benchmarks import compile_time",
    )
    call = "; ".join((*lines, f"compile_time.child({case!r}, start)"))
    done = subprocess.run(
        [sys.executable, "-c", call], env=os.environ | caches, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def child(case: str, start: float) -> None:
    """Print the seconds from `start` to the first result of this case."""
    cases: dict[str, Callable[[], float]] = {
        "first": lambda: _torchpure(5),
        "second": lambda: _torchpure(6) and _torchpure(5),
        "torch": _torch,
        "jax": _jax,
    }
    begun = cases[case]()
    print(json.dumps(time.perf_counter() - (begun if case == "second" else start)))


def _torchpure(neurons: int) -> float:
    """Run once, and return the time at which the work began."""
    import torchpure as tp

    x, y = data()
    net = tp.functional(SimpleNN, num_neurons=neurons)
    begun = time.perf_counter()
    tp.jit(training(net))(net.params, 1e-2, x, y)
    return begun


def _torch() -> float:
    import torch

    import torchpure as tp

    from .article_run import functional_step

    x, y = data()
    net = tp.functional(SimpleNN)
    begun = time.perf_counter()
    zeros = [{name: torch.zeros_like(leaf) for name, leaf in net.params.items()} for _ in range(2)]
    torch.compile(functional_step(net.to_module(), x, y), fullgraph=True)(net.params, *zeros, torch.zeros(()))
    return begun


def _jax() -> float:
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.uniform(0, 2 * np.pi, POINTS).astype("float32")
    shapes = ((5, 1), (5,), (5, 5), (5,), (1, 5), (1,))
    begun = time.perf_counter()
    params = [jax.numpy.array(rng.normal(size=shape), "float32") for shape in shapes]
    layers = list(zip(params[::2], params[1::2], strict=True))
    jax.block_until_ready(jax.jit(jax_train)(layers, 1e-2, x, 2 * np.sin(x)))
    return begun
