"""Step sizes found by searching along the direction of an update."""

from ._backtracking import BacktrackingState, scale_by_backtracking_linesearch
from ._line import Leaves, value_and_grad_from_state
from ._more_thuente import scale_by_more_thuente_linesearch
from ._strong_wolfe import scale_by_strong_wolfe_linesearch
from ._zoom import ZoomState, scale_by_zoom_linesearch

__all__ = [
    "BacktrackingState",
    "Leaves",
    "ZoomState",
    "scale_by_backtracking_linesearch",
    "scale_by_more_thuente_linesearch",
    "scale_by_strong_wolfe_linesearch",
    "scale_by_zoom_linesearch",
    "value_and_grad_from_state",
]
