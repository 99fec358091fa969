"""The groups of processes that are in use, by the name that torch gives them."""

from typing import Any

import torch.distributed as dist

from ._rounds import Group

_groups: dict[str, Group] = {}  # a name that torch gives again gets a new entry


def group_named(group: Any, label: str | None = None) -> Group:
    """Return what is known of a group of torch; its rounds are counted from when it is first seen."""
    name = group.group_name
    if name not in _groups or _groups[name].group is not group:
        _groups[name] = Group(group, "all processes")
    _groups[name].label = label or _groups[name].label
    return _groups[name]


def find_group(name: str) -> Group | None:
    """Return the group of a name; None if it was never seen."""
    return _groups.get(name)


def whole_group() -> Group:
    """Return the group of all processes of the program, which every mesh spans."""
    return group_named(dist.group.WORLD)
