"""Line searches: they choose a step size along the direction of an update."""

from ._backtracking import BacktrackingState as BacktrackingState
from ._backtracking import scale_by_backtracking_linesearch as scale_by_backtracking_linesearch
from ._line import Leaves as Leaves
from ._line import value_and_grad_from_state as value_and_grad_from_state
from ._more_thuente import scale_by_more_thuente_linesearch as scale_by_more_thuente_linesearch
from ._strong_wolfe import scale_by_strong_wolfe_linesearch as scale_by_strong_wolfe_linesearch
from ._zoom import ZoomState as ZoomState
from ._zoom import scale_by_zoom_linesearch as scale_by_zoom_linesearch
