"""torch's thread-local settings, which a new thread does not inherit: gradient mode, autocast, function modes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from torchpure._torch import autocast_supported_devices, get_current_function_mode_stack, pop_mode, push_mode

_device_types: Callable[[], list[str]] = autocast_supported_devices


def capture_settings() -> Callable[[], AbstractContextManager[None]]:
    """Return a context manager that applies the settings of this thread in another thread."""
    inference, grad_enabled = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    cache_enabled = torch.is_autocast_cache_enabled()
    autocasts = [
        (device_type, torch.get_autocast_dtype(device_type))
        for device_type in _device_types()
        if torch.is_autocast_enabled(device_type)
    ]
    modes = [mode for mode in get_current_function_mode_stack() if not _is_ours(mode)]

    @contextmanager
    def applied() -> Iterator[None]:
        with ExitStack() as stack:
            if inference:  # it sets the gradient mode too
                stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.set_grad_enabled(grad_enabled))
            for device_type, dtype in autocasts:
                stack.enter_context(torch.autocast(device_type, dtype, cache_enabled=cache_enabled))
            for mode in modes:  # pushed, not entered: `torch.device` records in __enter__ which device it replaces
                push_mode(mode)
                stack.callback(pop_mode)
            yield

    return applied


def _is_ours(mode: Any) -> bool:
    """Tell whether a mode belongs to this library: its state is that of one call in one thread."""
    return type(mode).__module__.partition(".")[0] == "torchpure"
