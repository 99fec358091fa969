"""One fit: its configuration, points, network, losses and training, without a folder."""

from ._batches import order_key, steps_per_epoch
from ._config import MAX_STEPS, FitConfig, command, configure
from ._fit import INTERRUPTED, STATUS, TERMINATED, Fit, fit, make_optimizer
from ._losses import NAMES, in_parts, loss_in_units, loss_name, measure, standard_loss, unit_of
from ._network import Network, blank, build, standardisation
from ._points import Data, Sample, is_streamed, load, load_many
from ._stream import Stream

__all__ = [
    "Data",
    "Fit",
    "FitConfig",
    "INTERRUPTED",
    "MAX_STEPS",
    "NAMES",
    "Network",
    "STATUS",
    "Sample",
    "Stream",
    "TERMINATED",
    "blank",
    "build",
    "command",
    "configure",
    "fit",
    "in_parts",
    "is_streamed",
    "load",
    "load_many",
    "loss_in_units",
    "loss_name",
    "make_optimizer",
    "measure",
    "order_key",
    "standard_loss",
    "steps_per_epoch",
    "standardisation",
    "unit_of",
]
