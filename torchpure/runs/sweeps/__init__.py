"""Sweeps: many trainings side by side, their space, their steps and their results."""

from ._group import Group, Position, chunk_width, is_finished, report_steps, run_group
from ._pictures import draw_sweep
from ._request import Request, is_sweep_folder, read_request, write_request
from ._results import Curves, Row, join_curves, json_lines, npz, parquet
from ._source import Source, make_source
from ._space import OPTIONS, Axis, Sampler, read_axes
from ._train import Inputs, Programs, State, Task, start_state
from ._watch import SweepProgress, SweepWatch, SweepWatcher, unwatched_sweep

__all__ = [
    "OPTIONS",
    "Axis",
    "Curves",
    "Group",
    "Inputs",
    "Position",
    "Programs",
    "Request",
    "Row",
    "Sampler",
    "Source",
    "State",
    "SweepProgress",
    "SweepWatch",
    "SweepWatcher",
    "Task",
    "chunk_width",
    "draw_sweep",
    "is_finished",
    "is_sweep_folder",
    "join_curves",
    "json_lines",
    "make_source",
    "npz",
    "parquet",
    "read_axes",
    "read_request",
    "report_steps",
    "run_group",
    "start_state",
    "unwatched_sweep",
    "write_request",
]
