"""What surrounds a call in this thread: named axes, active members, chunk offset, callbacks on or off."""

from ._axis_env import (
    AxisEnv,
    active_masks,
    active_where,
    collapse_axes,
    collapsed_axes,
    collectives_used,
    has_substituted_operands,
    next_active_where,
    open_axes,
    open_axis,
    record_collective,
    varies_over,
)
from ._callbacks import callbacks_suppressed, suppress_callbacks
from ._chunk_offset import chunk_offset, set_chunk_offset
from ._context import Offset, current

__all__ = [
    "AxisEnv",
    "Offset",
    "active_masks",
    "active_where",
    "callbacks_suppressed",
    "chunk_offset",
    "collapse_axes",
    "collapsed_axes",
    "collectives_used",
    "current",
    "has_substituted_operands",
    "next_active_where",
    "open_axes",
    "open_axis",
    "record_collective",
    "set_chunk_offset",
    "suppress_callbacks",
    "varies_over",
]
