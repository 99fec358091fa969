"""Optimizers as pairs of pure functions, and schedules for their rates."""

from ._adam import AdamState as AdamState
from ._adam import adam as adam
from ._adamw import adamw as adamw
from ._base import Optimizer as Optimizer
from ._base import apply_updates as apply_updates
from ._chain import chain as chain
from ._clip import ClipState as ClipState
from ._clip import clip_by_global_norm as clip_by_global_norm
from ._schedules import constant_schedule as constant_schedule
from ._schedules import cosine_decay_schedule as cosine_decay_schedule
from ._schedules import exponential_decay as exponential_decay
from ._schedules import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from ._sgd import SgdState as SgdState
from ._sgd import sgd as sgd
