"""Optimizers of modules, whose steps can be differentiated."""

from .adadelta import MetaAdaDelta, MetaAdadelta
from .adagrad import MetaAdaGrad, MetaAdagrad
from .adam import MetaAdam
from .adamax import MetaAdaMax, MetaAdamax
from .adamw import MetaAdamW
from .base import MetaOptimizer
from .radam import MetaRAdam
from .rmsprop import MetaRMSProp, MetaRMSprop
from .sgd import MetaSGD

__all__ = [
    "MetaAdaDelta",
    "MetaAdaGrad",
    "MetaAdaMax",
    "MetaAdadelta",
    "MetaAdagrad",
    "MetaAdam",
    "MetaAdamW",
    "MetaAdamax",
    "MetaOptimizer",
    "MetaRAdam",
    "MetaRMSProp",
    "MetaRMSprop",
    "MetaSGD",
]
