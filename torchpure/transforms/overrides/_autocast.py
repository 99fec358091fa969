"""Autocast under vmap: each operation gets the dtypes that it has without vmap.

torch's vmap comes before autocast. It replaces some operations by others, `linear` by a product and a sum for example,
and autocast then casts the arguments of those. Here autocast comes first. What vmap makes of an operation runs without.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure import tree
from torchpure._torch import DispatchKey, DispatchKeySet, has_kernel
from torchpure.transforms.engine import active_autocasts, functorch, level_kinds, with_autocasts

from ._attention import attention

_aten: Any = torch.ops.aten
_CASTS = {torch.float32, torch.float16, torch.bfloat16}
_KEYS = {"cpu": DispatchKey.AutocastCPU, "cuda": DispatchKey.AutocastCUDA}


def _cast_first(operation: Any, overload: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operation of torch as autocast does, and what it consists of without autocast."""
    given = (leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor))
    device = next((leaf.device.type for leaf in given if leaf.device.type in _KEYS), None)
    if device is None or not torch.is_autocast_enabled(device):
        return operation(*args, **kwargs)
    if has_kernel(overload.name(), _KEYS[device]):
        return overload.redispatch(DispatchKeySet(_KEYS[device]), *args, **kwargs)
    with with_autocasts(()):
        return operation(*args, **kwargs)


def _cast_attention(*args: Any, **kwargs: Any) -> Tensor:
    """Cast the arguments of attention as autocast does; torch's kernel of attention cannot be mapped."""
    device = (args[0] if args else kwargs["query"]).device.type
    if not torch.is_autocast_enabled(device):
        return attention(*args, **kwargs)
    dtype = torch.get_autocast_dtype(device)

    def cast(leaf: Any) -> Any:
        return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.dtype in _CASTS else leaf

    args, kwargs = tree.map(cast, (args, kwargs))
    with with_autocasts(()):
        return attention(*args, **kwargs)


def is_mapped_autocast() -> bool:
    """Return whether autocast is on inside of a vmap."""
    return bool(active_autocasts()) and functorch.TransformType.Vmap in level_kinds()


_OPERATIONS = {
    _aten.linear.default: (F.linear,),
    _aten.prelu.default: (F.prelu, torch.prelu, Tensor.prelu),
    _aten.pinverse.default: (torch.pinverse, torch.linalg.pinv, Tensor.pinverse),
    _aten.conv_transpose1d.default: (torch.conv_transpose1d, F.conv_transpose1d),
    _aten.conv_transpose2d.input: (torch.conv_transpose2d, F.conv_transpose2d),
    _aten.conv_transpose3d.input: (torch.conv_transpose3d, F.conv_transpose3d),
}
_OPERATIONS |= {
    getattr(_aten, name).default: (getattr(torch, name), getattr(Tensor, name))
    for name in ("addmm", "addmv", "addbmm", "baddbmm", "dot", "vdot", "mv", "addr")
}
_OPERATIONS |= {
    getattr(_aten, name).default: (getattr(torch, name), getattr(F, name)) for name in ("conv1d", "conv2d", "conv3d")
}
AUTOCAST: dict[Any, Callable[..., Any]] = {F.scaled_dot_product_attention: _cast_attention} | {
    operation: partial(_cast_first, operation, overload)
    for overload, operations in _OPERATIONS.items()
    for operation in operations
}
