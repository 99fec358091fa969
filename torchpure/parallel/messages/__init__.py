"""Messages between processes: each learns what the others do, and none waits for one that has failed."""

from ._exchange import agree_on, close_channel, gather_bytes, open_channel, telling
from ._groups import find_group, group_named, whole_group
from ._rounds import Group, announce_failure, heard_by_all, round_of, run_work

__all__ = [
    "Group",
    "agree_on",
    "announce_failure",
    "close_channel",
    "find_group",
    "gather_bytes",
    "group_named",
    "heard_by_all",
    "open_channel",
    "round_of",
    "run_work",
    "telling",
    "whole_group",
]
