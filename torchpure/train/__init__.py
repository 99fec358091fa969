"""Training: the loop, fits of a model to data, and sweeps of many runs."""

from torchpure.checkpoints import Checkpointer

from ._batches import minibatches
from ._fit import Fit, fit, mean_square
from ._loop import Progress, loop
from ._space import Range, choice, log_uniform, uniform
from ._sweep import Member, Sweep, best, member, sweep

__all__ = [
    "Checkpointer",
    "Fit",
    "Member",
    "Progress",
    "Range",
    "Sweep",
    "best",
    "choice",
    "fit",
    "log_uniform",
    "loop",
    "mean_square",
    "member",
    "minibatches",
    "sweep",
    "uniform",
]
