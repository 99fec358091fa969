"""DTensors are recognised without an import of them, which takes long: whoever made one has imported them."""

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def dtensor_class() -> "type[DTensor] | None":
    """Return torch's class of DTensors, or None while nobody has imported it: then there is no DTensor."""
    return getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)  # another thread may import it now


def is_dtensor(value: Any) -> "TypeGuard[DTensor]":
    """Tell whether a value is a DTensor."""
    kind = dtensor_class()
    return kind is not None and isinstance(value, kind)
