"""Looks at numbers inside of transforms: eager code has torch's kernels where they are right, else formulas."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import (
    DispatchKey,
    DispatchKeySet,
    ExcludeDispatchKeyGuard,
    FakeTensor,
    forward_ad,
    get_proxy_mode,
    len_torch_dispatch_stack,
)

from ._levels import _VMAP, functorch, in_any_level, innermost, level_kinds

_FEW = 32  # so many numbers are read faster by Python
_LEVELS = DispatchKeySet(DispatchKey.FuncTorchDynamicLayerFrontMode).add(DispatchKey.FuncTorchDynamicLayerBackMode)
_num_modes = len_torch_dispatch_stack
_JVP, _current_level = functorch.TransformType.Jvp, functorch.maybe_current_level
_is_wrapped, _unwrapped = functorch.is_functorch_wrapped_tensor, functorch.get_unwrapped


class _Looks(threading.local):
    are_refused_to_members = False


_looks = _Looks()


@contextmanager
def members_apart() -> Iterator[None]:
    """Let no member of a vmap decide by its numbers which kernel runs for the others.

    A formula and torch's kernel differ in the last bits. In training a member that diverges must not change them for
    the others, so that formulas run for all.
    """
    before = _looks.are_refused_to_members
    _looks.are_refused_to_members = True
    try:
        yield
    finally:
        _looks.are_refused_to_members = before


def all_between(leaf: Tensor, low: float, high: float) -> bool:
    """Return whether the numbers of all members of a tensor are known and lie in a range; a trace knows none."""
    if _looks.are_refused_to_members and _VMAP in level_kinds():
        return False
    while _is_wrapped(leaf):
        leaf = _unwrapped(leaf)
    if (_num_modes() or not leaf.is_cpu or leaf.__class__ is not Tensor) and not _is_readable(leaf):
        return False
    if leaf.requires_grad:
        leaf = leaf.detach()
    if leaf.numel() > _FEW:
        with ExcludeDispatchKeyGuard(_LEVELS):  # each level costs microseconds an operation
            smallest, largest = leaf.aminmax()
            return low <= smallest.item() and largest.item() <= high
    numbers: Any = leaf.tolist()
    if not leaf.ndim:
        return low <= numbers <= high
    for _ in range(leaf.ndim - 1):
        numbers = list(chain.from_iterable(numbers))
    # the minimum of numbers and NaN may be a number, and their sum is none
    return not numbers or (low <= min(numbers) and max(numbers) <= high and sum(numbers) <= math.inf)


def _is_readable(plain: Tensor) -> bool:
    """Return whether a tensor has numbers that can be read: no trace is made, and no graph of kernels is recorded."""
    if isinstance(plain, FakeTensor) or plain.is_meta or get_proxy_mode() is not None:
        return False
    return not (plain.is_cuda and torch.cuda.is_current_stream_capturing())


def nothing_is_recorded() -> bool:
    """Return whether no derivative is taken of what runs here, as in most backward passes of plain autograd."""
    return not torch.is_grad_enabled() and not in_any_level()


def may_look(times: int, *leaves: Tensor) -> bool:
    """Return whether to run torch and to look at its numbers: they are known, and are differentiated seldom.

    Each level takes a derivative at most, and so does plain autograd, which takes one outside of all levels.
    """
    if _num_modes() and (get_proxy_mode() or any(isinstance(innermost(leaf), FakeTensor) for leaf in leaves)):
        return False
    most = (_current_level() or 0) + (forward_ad._current_level >= 0)  # the usual case is fast
    if most < times or not most:
        return True
    plain = False
    for leaf in leaves:
        while _is_wrapped(leaf):
            leaf = _unwrapped(leaf)
        plain = plain or leaf.requires_grad
    if most + plain <= times:
        return True
    kinds = level_kinds()
    levels = len(kinds) - kinds.count(_VMAP) + (forward_ad._current_level >= 0 and _JVP not in kinds)
    return not levels or levels + plain <= times
