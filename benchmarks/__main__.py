"""Run every figure, or those that are named: `python -m benchmarks article_step call`."""

import importlib
import os
import sys

FIGURES = ("article_step", "call", "random", "ensemble", "transforms", "optim", "optim_compiled")


def main() -> None:
    """Give every peer one thread on one core, before any of them is imported."""
    wanted = sys.argv[1:] or list(FIGURES)
    unknown = [name for name in wanted if name not in FIGURES]
    if unknown:
        raise SystemExit(f"benchmarks: no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for name in wanted:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
