"""What surrounds a call in this thread: named axes, active members, chunk offset, callbacks on or off."""

from ._axis_env import AxisEnv as AxisEnv
from ._axis_env import active_masks as active_masks
from ._axis_env import active_where as active_where
from ._axis_env import collapse_axes as collapse_axes
from ._axis_env import collapsed_axes as collapsed_axes
from ._axis_env import collectives_used as collectives_used
from ._axis_env import has_substituted_operands as has_substituted_operands
from ._axis_env import next_active_where as next_active_where
from ._axis_env import open_axes as open_axes
from ._axis_env import open_axis as open_axis
from ._axis_env import record_collective as record_collective
from ._axis_env import varies_over as varies_over
from ._callbacks import callbacks_suppressed as callbacks_suppressed
from ._callbacks import suppress_callbacks as suppress_callbacks
from ._chunk_offset import chunk_offset as chunk_offset
from ._chunk_offset import set_chunk_offset as set_chunk_offset
from ._context import Offset as Offset
from ._context import current as current
