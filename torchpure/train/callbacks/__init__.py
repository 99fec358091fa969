"""Callbacks of a training, as pairs of pure functions, and what a run reports to them."""

from ._best_so_far import BestState, best_so_far
from ._callback import Callback, Observer, StepValues, as_callback, chain, updated
from ._csv_log import csv_log
from ._early_stopping import EarlyStoppingState, early_stopping
from ._gradient_norms import GradientNormsState, gradient_norms
from ._jsonl_log import jsonl_log
from ._log_files import LogState
from ._parameter_ema import ParameterEmaState, parameter_ema
from ._progress import Divergence, Progress, describe_bad
from ._progress_bar import progress_bar
from ._tensorboard import tensorboard

__all__ = [
    "BestState",
    "Callback",
    "Divergence",
    "EarlyStoppingState",
    "GradientNormsState",
    "LogState",
    "Observer",
    "ParameterEmaState",
    "Progress",
    "StepValues",
    "as_callback",
    "best_so_far",
    "chain",
    "csv_log",
    "describe_bad",
    "early_stopping",
    "gradient_norms",
    "jsonl_log",
    "parameter_ema",
    "progress_bar",
    "tensorboard",
    "updated",
]
