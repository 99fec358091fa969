"""Optimizers that keep their state."""

from . import meta
from .adadelta import AdaDelta, Adadelta
from .adagrad import AdaGrad, Adagrad
from .adam import Adam
from .adamax import AdaMax, Adamax
from .adamw import AdamW
from .base import Optimizer
from .func import FuncOptimizer
from .radam import RAdam
from .rmsprop import RMSProp, RMSprop
from .sgd import SGD

__all__ = [
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "FuncOptimizer",
    "Optimizer",
    "RAdam",
    "RMSProp",
    "RMSprop",
    "SGD",
    "meta",
]
