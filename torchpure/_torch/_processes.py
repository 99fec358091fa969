"""Parts of torch.distributed: the store that all processes share, and the timeout of a group."""

from datetime import timedelta
from typing import Any

from torch.distributed import distributed_c10d as _module


def get_default_store() -> Any:
    """Return the store of the default group: a table of bytes that all processes read and write."""
    return _module._get_default_store()


def set_group_timeout(seconds: float, group: Any) -> None:
    """Set how long a collective of a group waits for the others."""
    _module._set_pg_timeout(timedelta(seconds=seconds), group)
