"""Many members at once: vmap, chunks, devices, collectives."""

from ._chunks import check_chunk
from ._collectives import (
    all_gather,
    all_to_all,
    axis_index,
    axis_size,
    pmax,
    pmean,
    pmin,
    ppermute,
    psum,
    psum_scatter,
)
from ._process_axis import Linear, linear_collective, run_linear
from ._vmap import Mapping, vmap

__all__ = [
    "Linear",
    "Mapping",
    "all_gather",
    "all_to_all",
    "axis_index",
    "axis_size",
    "check_chunk",
    "linear_collective",
    "pmax",
    "pmean",
    "pmin",
    "ppermute",
    "psum",
    "psum_scatter",
    "run_linear",
    "vmap",
]
