"""Looks at numbers inside of transforms: eager code has torch's kernels where they are right, else formulas."""

import math
from itertools import chain

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

from ._levels import _VMAP, functorch, innermost, level_kinds

_FEW = 32  # so many numbers are read faster by Python
_LEVELS = DispatchKeySet(DispatchKey.FuncTorchDynamicLayerFrontMode).add(DispatchKey.FuncTorchDynamicLayerBackMode)
_num_modes = len_torch_dispatch_stack
_JVP, _current_level = functorch.TransformType.Jvp, functorch.maybe_current_level
_is_wrapped, _unwrapped = functorch.is_functorch_wrapped_tensor, functorch.get_unwrapped


def all_between(leaf: Tensor, low: float, high: float) -> bool:
    """Return whether the numbers of all members of a tensor are known and lie in a range; a trace knows none."""
    while _is_wrapped(leaf):
        leaf = _unwrapped(leaf)
    if (_num_modes() or not leaf.is_cpu or leaf.__class__ is not Tensor) and not _is_readable(leaf):
        return False
    count = leaf.numel()
    if count <= _FEW:
        leaf = leaf.detach() if leaf.requires_grad else leaf  # of a variable, no numbers are read
        numbers = leaf.tolist() if leaf.ndim else [leaf.item()]
        for _ in range(leaf.ndim - 1):
            numbers = list(chain.from_iterable(numbers))
        # the minimum of numbers and NaN may be a number, and their sum is none
        return not count or (low <= min(numbers) and max(numbers) <= high and sum(numbers) <= math.inf)
    with ExcludeDispatchKeyGuard(_LEVELS):  # each level costs microseconds an operation
        smallest, largest = leaf.detach().aminmax()
        return low <= smallest.item() and largest.item() <= high


def _is_readable(plain: Tensor) -> bool:
    """Return whether a tensor has numbers that can be read: no trace is made, and no graph of kernels is recorded."""
    if isinstance(plain, FakeTensor) or plain.is_meta or get_proxy_mode() is not None:
        return False
    return not (plain.is_cuda and torch.cuda.is_current_stream_capturing())


def is_differentiated_at_most(times: int, *leaves: Tensor) -> bool:
    """Return whether so many derivatives at most are taken along tensors: one a level, and one by plain autograd.

    Outside of all levels plain autograd takes one.
    """
    count = _current_level() or 0
    forward = forward_ad._current_level >= 0
    if count + forward < times or not (count or forward):
        return True
    kinds = level_kinds()
    levels = sum(kind != _VMAP for kind in kinds) + (forward and _JVP not in kinds)
    return levels + any(innermost(leaf).requires_grad for leaf in leaves) <= times
