"""Runs: trainings that leave a folder with their configuration, metrics, parameters and pictures."""

from ._executors import open_executor
from ._export import Exported, export
from ._info import info
from ._list import Listed, list_runs
from ._loaded import LoadedRun, SavedRun, load_run, read_run
from ._predict import predict, predict_table
from ._processes import is_first
from ._report import report
from ._run import Run, Watch, Watcher, resume, run, summary
from ._sweep import SweepRun, resume_sweep, sweep
from .fits import FitConfig, configure
from .sweeps import (
    SweepProgress,
    SweepWatch,
    SweepWatcher,
    check_given_once,
    is_sweep_folder,
    read_axes,
    unwatched_sweep,
)

__all__ = [
    "Exported",
    "FitConfig",
    "Listed",
    "LoadedRun",
    "Run",
    "SavedRun",
    "SweepProgress",
    "SweepRun",
    "SweepWatch",
    "SweepWatcher",
    "Watch",
    "Watcher",
    "check_given_once",
    "configure",
    "export",
    "info",
    "is_first",
    "is_sweep_folder",
    "list_runs",
    "load_run",
    "open_executor",
    "predict",
    "predict_table",
    "read_axes",
    "read_run",
    "report",
    "resume",
    "resume_sweep",
    "run",
    "summary",
    "sweep",
    "unwatched_sweep",
]
