"""Many members at once: vmap, chunks, devices, collectives."""

from ._chunks import check_chunk
from ._collectives import all_gather, axis_index, pmax, pmean, pmin, psum
from ._vmap import Mapping, vmap

__all__ = ["Mapping", "all_gather", "axis_index", "check_chunk", "pmax", "pmean", "pmin", "psum", "vmap"]
