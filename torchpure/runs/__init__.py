"""Runs: trainings that leave a folder with their configuration, metrics, parameters and pictures."""

from ._config import FitConfig, configure
from ._loaded import LoadedRun, SavedRun, load_run, read_run
from ._run import Run, Watch, Watcher, run, summary

__all__ = [
    "FitConfig",
    "LoadedRun",
    "Run",
    "SavedRun",
    "Watch",
    "Watcher",
    "configure",
    "load_run",
    "read_run",
    "run",
    "summary",
]
