"""Steps of a chain: scale, clip, decay, momentum, noise, measurements."""

from ._add_noise import AddNoiseState, add_noise
from ._apply_every import ApplyEveryState, apply_every
from ._clip import adaptive_grad_clip, clip, clip_by_block_rms, clip_by_global_norm, normalize_by_update_norm
from ._constrain import ZeroNansState, keep_params_nonnegative, zero_nans
from ._ema import EmaState, ema
from ._monitor import MonitorState, SnapshotState, measure_with_ema, monitor, snapshot
from ._per_example_clip import per_example_global_norm_clip, per_example_layer_norm_clip
from ._reduce_on_plateau import ReduceOnPlateauState, reduce_on_plateau
from ._scale import ScheduleState, scale, scale_by_learning_rate, scale_by_schedule
from ._trace import TraceState, trace
from ._trust_ratio import scale_by_trust_ratio, trust_ratio
from ._weight_decay import add_decayed_weights

__all__ = [
    "AddNoiseState",
    "ApplyEveryState",
    "EmaState",
    "MonitorState",
    "ReduceOnPlateauState",
    "ScheduleState",
    "SnapshotState",
    "TraceState",
    "ZeroNansState",
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_noise",
    "apply_every",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "ema",
    "keep_params_nonnegative",
    "measure_with_ema",
    "monitor",
    "normalize_by_update_norm",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "reduce_on_plateau",
    "scale",
    "scale_by_learning_rate",
    "scale_by_schedule",
    "scale_by_trust_ratio",
    "snapshot",
    "trace",
    "trust_ratio",
    "zero_nans",
]
