"""Training: the loop, fits of a model to data, and sweeps of many runs."""

from torchpure.checkpoints import Checkpointer

from . import callbacks
from ._batches import minibatches
from ._find_learning_rate import LearningRates, find_learning_rate
from ._fit import Fit, fit
from ._loop import loop
from ._problem import mean_square
from ._sweep import sweep
from .callbacks import Divergence, Progress
from .sweeps import Member, Range, Sweep, best, choice, log_uniform, member, uniform

__all__ = [
    "Checkpointer",
    "Divergence",
    "Fit",
    "LearningRates",
    "Member",
    "Progress",
    "Range",
    "Sweep",
    "best",
    "callbacks",
    "choice",
    "find_learning_rate",
    "fit",
    "log_uniform",
    "loop",
    "mean_square",
    "member",
    "minibatches",
    "sweep",
    "uniform",
]
