"""Sweeps: many trainings side by side, their space, their steps and their results."""

from ._group import Position, is_finished, report_steps, run_group, validation_steps
from ._members import Member, Outcome, Prepared, evaluate, fill_network, group_label, prepare, score, split_groups
from ._pictures import draw_sweep
from ._request import Request, is_sweep_folder, read_request, write_request
from ._results import Curves, Row, curve_columns, curve_lines, curve_parquet, join_curves, json_lines, npz, parquet
from ._source import Source, make_source
from ._space import OPTIONS, Axis, Sampler, check_given_once, read_axes
from ._train import Programs
from ._watch import SweepProgress, SweepWatch, SweepWatcher, unwatched_sweep

__all__ = [
    "Programs",
    "split_groups",
    "score",
    "prepare",
    "group_label",
    "fill_network",
    "evaluate",
    "Prepared",
    "Outcome",
    "Member",
    "OPTIONS",
    "Axis",
    "check_given_once",
    "Curves",
    "Position",
    "Request",
    "Row",
    "Sampler",
    "Source",
    "SweepProgress",
    "SweepWatch",
    "SweepWatcher",
    "curve_columns",
    "curve_lines",
    "curve_parquet",
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
    "unwatched_sweep",
    "validation_steps",
    "write_request",
]
