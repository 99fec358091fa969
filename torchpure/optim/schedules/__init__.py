"""Schedules: learning rates as pure functions of the step count."""

from ._basic import constant_schedule as constant_schedule
from ._basic import cosine_decay_schedule as cosine_decay_schedule
from ._basic import exponential_decay as exponential_decay
from ._basic import linear_schedule as linear_schedule
from ._basic import polynomial_schedule as polynomial_schedule
from ._joined import cosine_warm_restarts_schedule as cosine_warm_restarts_schedule
from ._joined import join_schedules as join_schedules
from ._joined import sgdr_schedule as sgdr_schedule
from ._joined import warmup_constant_schedule as warmup_constant_schedule
from ._joined import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from ._joined import warmup_exponential_decay_schedule as warmup_exponential_decay_schedule
from ._piecewise import cosine_onecycle_schedule as cosine_onecycle_schedule
from ._piecewise import linear_onecycle_schedule as linear_onecycle_schedule
from ._piecewise import one_cycle_schedule as one_cycle_schedule
from ._piecewise import piecewise_constant_schedule as piecewise_constant_schedule
from ._piecewise import piecewise_interpolate_schedule as piecewise_interpolate_schedule
