"""Transformations of gradients, from which optimizers are made."""

from ._checks import (
    check_betas,
    check_closed_interval,
    check_learning_rate,
    check_nesterov,
    check_nonnegative,
)
from ._leafwise import Formula, make_transformation, run_formulas
from .add_decayed_weights import add_decayed_weights, masked
from .nan_to_num import nan_to_num
from .scale import scale
from .scale_by_adadelta import scale_by_adadelta
from .scale_by_adam import scale_by_accelerated_adam, scale_by_adam
from .scale_by_adamax import scale_by_adamax
from .scale_by_radam import scale_by_radam
from .scale_by_rms import scale_by_rms
from .scale_by_rss import scale_by_rss
from .scale_by_schedule import scale_by_schedule
from .scale_by_stddev import scale_by_stddev
from .trace import trace

__all__ = [
    "Formula",
    "add_decayed_weights",
    "check_betas",
    "check_closed_interval",
    "check_learning_rate",
    "check_nesterov",
    "check_nonnegative",
    "make_transformation",
    "masked",
    "nan_to_num",
    "run_formulas",
    "scale",
    "scale_by_accelerated_adam",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_stddev",
    "trace",
]
