"""The autocast settings of a thread: read, and applied again where a rule or another thread runs a function."""

from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch.compiler import is_dynamo_compiling

from torchpure._torch import autocast_supported_devices, is_any_autocast_enabled

Autocasts = tuple[tuple[str, torch.dtype], ...]  # the devices with autocast on, and its dtypes
_NOTHING = nullcontext()


def active_autocasts() -> Autocasts:
    """Return the autocasts that are on in this thread."""
    if is_dynamo_compiling() or not is_any_autocast_enabled():
        return ()
    return tuple(
        (device, torch.get_autocast_dtype(device))
        for device in autocast_supported_devices()
        if torch.is_autocast_enabled(device)
    )


def with_autocasts(wanted: Autocasts, cache: bool = False) -> AbstractContextManager[object]:
    """Turn exactly these autocasts on inside of the block; without a cache, no cast tensor leaves it."""
    found = active_autocasts()
    if found == wanted:
        return _NOTHING
    stack = ExitStack()
    for device in {device for device, _ in found} - {device for device, _ in wanted}:
        stack.enter_context(torch.autocast(device, enabled=False))
    for device, dtype in wanted:
        stack.enter_context(torch.autocast(device, dtype, cache_enabled=cache))
    return stack


def clear_autocast_cache() -> None:
    """Empty the cache of autocast, which else keeps our variables and their graph until autocast ends."""
    if is_any_autocast_enabled():
        torch.clear_autocast_cache()
