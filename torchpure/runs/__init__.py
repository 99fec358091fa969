"""Runs: trainings that leave a folder with their configuration, metrics, parameters and pictures."""

from ._config import FitConfig, configure
from ._network import Network, blank
from ._predict import predict_file, predict_table
from ._run import Run, Watch, Watcher, run, summary

__all__ = [
    "FitConfig",
    "Network",
    "Run",
    "Watch",
    "Watcher",
    "blank",
    "configure",
    "predict_file",
    "predict_table",
    "run",
    "summary",
]
