"""Training: the loop, fits of a model to data, sweeps of many runs, and runs that are differentiated."""

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
from .unrolled import Unrolled, unroll

__all__ = [
    "Checkpointer",
    "Divergence",
    "Fit",
    "LearningRates",
    "Member",
    "Progress",
    "Range",
    "Sweep",
    "Unrolled",
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
    "unroll",
]
