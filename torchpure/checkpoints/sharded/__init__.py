"""Tensors that lie on many processes: their parts, which process writes each, and how a restore puts them together."""

from ._boxes import Box, check_cover, copy_part, overlap, whole
from ._placements import boxes_of, check_placements, distribute, has_distributed, local_part, owned
from ._together import (
    any_process,
    check_same,
    close_group,
    gather,
    is_alone,
    open_group,
    rank_of_program,
    telling,
    telling_all,
    together,
    whole_group,
)

__all__ = [
    "Box",
    "any_process",
    "boxes_of",
    "check_cover",
    "check_placements",
    "check_same",
    "close_group",
    "copy_part",
    "distribute",
    "gather",
    "has_distributed",
    "is_alone",
    "local_part",
    "open_group",
    "overlap",
    "owned",
    "rank_of_program",
    "telling",
    "telling_all",
    "together",
    "whole",
    "whole_group",
]
