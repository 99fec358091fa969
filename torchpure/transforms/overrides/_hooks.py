"""Backward hooks inside of transforms: where torch would not run one, it is refused.

Under vmap and in forward mode a tensor has no node of plain autograd, so torch leaves the hooks of modules out, and the
gradient is silently another one. Full backward hooks need an autograd.Function that torch.func cannot follow.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module
from torch.utils import hooks

from torchpure._torch import functorch
from torchpure.transforms.engine import is_differentiated

from ._override import Override, Where


def _no_full_hook(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Refuse a full backward hook, which reads `requires_grad` of inputs and outputs."""
    frame = sys._getframe(2)
    if frame.f_globals is hooks.__dict__ and _is_followed_by_transform(args[0]):
        _refuse(frame.f_locals["self"].module)
    return args, kwargs


def _no_hook_without_node(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Refuse a backward hook of the older form, which reads `grad_fn` of an output, if there is none."""
    frame = sys._getframe(2)
    is_call = frame.f_globals is module.__dict__ and frame.f_code.co_name == "inner"  # inside of Module._call_impl
    if is_call and args[0].grad_fn is None and _is_followed_by_transform(args[0]):
        _refuse(frame.f_locals["self"])
    return args, kwargs


def _refuse(owner: nn.Module) -> None:
    raise RuntimeError(f"backward hooks of {type(owner).__name__} inside of a transform")


def _is_followed_by_transform(leaf: Tensor) -> bool:
    levels = functorch.peek_interpreter_stack() is not None
    return levels and torch.is_grad_enabled() and is_differentiated(leaf)


def _no_accumulation(args: Any, kwargs: Any) -> tuple[Any, Any]:
    raise RuntimeError("hook after the accumulation into .grad inside of a transform")


OVERRIDES = (
    Override([Tensor.requires_grad.__get__], Where.INTERCEPTED, _no_full_hook),  # type: ignore[attr-defined]
    Override([Tensor.grad_fn.__get__], Where.INTERCEPTED, _no_hook_without_node),  # type: ignore[attr-defined]
    Override([Tensor.register_post_accumulate_grad_hook], Where.INTERCEPTED, _no_accumulation),
)
