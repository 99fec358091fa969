"""Run all figures, or the named ones: `python -m benchmarks article_run jit_call`.

Each figure runs in a new process. Its number of threads and its cores are set before any import.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
FIGURES = (
    "article_run",
    "article_members",
    "wide_members",
    "mlp_step",
    "transformer_step",
    "jit_call",
    "poisson_run",
    "laplacian",
    "burgers",
    "maml",
    "meta",
    "compile_time",
    "compile_growth",
    "first_step",
    "small_products",
    "article_step",
    "call",
    "random",
    "ensemble",
    "transforms",
    "optim",
    "optim_compiled",
    "checkpoints",
    "checkpoint_cost",
    "sweep_command",
    "scale_sweep",
    "read_csv",
    "scale",
    "scale_model",
    "scale_train",
    "compat",
)


def main() -> None:
    """Run the figures one after another, each with every number of threads in its `THREADS`."""
    wanted = sys.argv[1:] or list(FIGURES)
    unknown = [name for name in wanted if name not in FIGURES]
    if unknown:
        raise SystemExit(f"benchmarks: no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    failed = [name for name in wanted for threads in _threads(name) if not _run(name, threads)]
    if failed:
        raise SystemExit(f"benchmarks: failed: {', '.join(failed)}")


def _threads(name: str) -> tuple[int, ...]:
    """Read `THREADS` of a figure without importing it. The default is one thread."""
    for node in ast.parse((FOLDER / f"{name}.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "THREADS":
            value = ast.literal_eval(node.value)
            return value if isinstance(value, tuple) else (value,)
    return (1,)


def _run(name: str, threads: int) -> bool:
    """Run a figure on as many cores as threads. All of its programs have the same setting."""
    several = str(threads > 1).lower()
    flags = f"--xla_cpu_multi_thread_eigen={several} intra_op_parallelism_threads={threads}"
    settled = {"OMP_NUM_THREADS": str(threads), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, sorted(cores)[:threads])  # the figure's process inherits it
    call = f"from benchmarks.{name} import main; main()"
    try:
        done = subprocess.run([sys.executable, "-c", call], env=os.environ | settled, cwd=FOLDER.parent, check=False)
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
    return done.returncode == 0


if __name__ == "__main__":
    main()
