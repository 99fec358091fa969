"""The files of a run's folder, read as data from a stranger: checked, with bounded memory, and no link followed."""

from ._description import DataDescription, Description, read_description
from ._files import open_file, open_folder, read_bytes
from ._metrics import Metrics, read_last, read_metrics, read_seconds
from ._parameters import read_header, read_parameters
from ._replace import check_output, replaced
from ._sweep import SweepTable, best_row, count_ends, is_sweep, read_curves, read_sweep, read_sweep_result

__all__ = [
    "DataDescription",
    "Description",
    "Metrics",
    "SweepTable",
    "best_row",
    "check_output",
    "count_ends",
    "is_sweep",
    "open_file",
    "open_folder",
    "read_bytes",
    "read_curves",
    "read_description",
    "read_header",
    "read_last",
    "read_metrics",
    "read_parameters",
    "read_seconds",
    "read_sweep",
    "read_sweep_result",
    "replaced",
]
