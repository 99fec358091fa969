"""`torch.no_grad` inside a function cuts derivatives in forward mode too.

In reverse mode torch records nothing in such a block, at any level: its results are constants. Forward mode ignores the
block in torch. Here the switch of reverse mode also turns forward derivatives off and on.
"""

import sys
from typing import Any

import torch

from torchpure._torch import is_fwd_grad_enabled, set_fwd_grad_enabled
from torchpure.transforms.engine import functorch, level_kinds

_BEFORE = "_torchpure_forward_before"  # an attribute of a block: whether forward mode was on before it
_WRAPPERS = frozenset(
    getattr(kind, name).__code__ for kind in (torch.no_grad, torch.enable_grad) for name in ("__enter__", "__exit__")
)


def set_forward_mode(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Set forward mode as reverse mode is about to be set; at the end of a block as it was before."""
    if functorch.TransformType.Jvp not in level_kinds():
        return args, kwargs
    frame: Any = sys._getframe(2)  # below the mode, and other modes: a method of the block
    while frame.f_code.co_name == "__torch_function__":
        frame = frame.f_back
    if frame.f_back.f_code in _WRAPPERS:  # which makes a `set_grad_enabled` of its own
        frame = frame.f_back
    if frame.f_back.f_globals.get("__name__", "").startswith("torchpure."):  # a transform starts or ends
        return args, kwargs
    block, leaves = frame.f_locals.get("self"), frame.f_code.co_name == "__exit__"
    if leaves and hasattr(block, _BEFORE):
        set_fwd_grad_enabled(getattr(block, _BEFORE))
        delattr(block, _BEFORE)
        return args, kwargs
    if block is not None and not hasattr(block, _BEFORE):
        setattr(block, _BEFORE, is_fwd_grad_enabled())
    set_fwd_grad_enabled(bool(args[0]))
    return args, kwargs
