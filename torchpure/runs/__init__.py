"""Runs: trainings that leave a folder with their configuration, metrics, parameters and pictures."""

from ._config import FitConfig, configure
from ._run import Run, Watch, Watcher, run, summary

__all__ = ["FitConfig", "Run", "Watch", "Watcher", "configure", "run", "summary"]
