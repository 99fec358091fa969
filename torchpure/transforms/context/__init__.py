"""What surrounds a call in this thread: axes of vmaps and meshes, active members, chunk offset, callbacks, modules."""

from ._axis_env import (
    active_masks,
    active_where,
    collapse_axes,
    collapsed_axes,
    collectives_used,
    has_substituted_operands,
    new_body,
    next_active_where,
    open_axes,
    open_axis,
    open_mesh,
    open_mesh_axes,
    record_collective,
    varies_over,
)
from ._call_env import CallEnv
from ._callbacks import callbacks_suppressed, suppress_callbacks
from ._chunk_offset import chunk_offset, set_chunk_offset
from ._context import MeshAxis, Offset, current
from ._resumable import Resumable, active_resumables, resumable

__all__ = [
    "CallEnv",
    "MeshAxis",
    "Offset",
    "Resumable",
    "active_masks",
    "active_resumables",
    "active_where",
    "callbacks_suppressed",
    "chunk_offset",
    "collapse_axes",
    "collapsed_axes",
    "collectives_used",
    "current",
    "has_substituted_operands",
    "new_body",
    "next_active_where",
    "open_axes",
    "open_axis",
    "open_mesh",
    "open_mesh_axes",
    "record_collective",
    "resumable",
    "set_chunk_offset",
    "suppress_callbacks",
    "varies_over",
]
