"""Parts of torch.distributed: the store that all processes share, the timeout of a group, and DTensors."""

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

from torch.distributed import distributed_c10d as _module

if TYPE_CHECKING:  # slow to import; programs without DTensors never do
    from torch.distributed.tensor import DTensor

get_default_store = _module._get_default_store
set_group_timeout = _module._set_pg_timeout


def dtensor_class() -> "type[DTensor] | None":
    """Return torch's class of DTensors, or None while nobody has imported it: then there is no DTensor."""
    return getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)  # another thread may import it now


def is_dtensor(value: Any) -> "TypeGuard[DTensor]":
    """Tell whether a value is a DTensor."""
    kind = dtensor_class()
    return kind is not None and isinstance(value, kind)
