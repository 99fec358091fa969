"""The space of a sweep, and its results."""

from ._results import Member, Sweep, best, member, merge_results
from ._space import Method, Point, Range, Space, choice, list_points, log_uniform, uniform

__all__ = [
    "Member",
    "Method",
    "Point",
    "Range",
    "Space",
    "Sweep",
    "best",
    "choice",
    "list_points",
    "log_uniform",
    "member",
    "merge_results",
    "uniform",
]
