"""Settings of a thread: torch keeps them for each, and a new thread has none."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from torchpure._torch import autocast_supported_devices, get_current_function_mode_stack, pop_mode, push_mode

_kinds: Callable[[], list[str]] = autocast_supported_devices


def settings() -> Callable[[], AbstractContextManager[None]]:
    """Return what makes the settings of this thread those of another: modes of gradients, autocast, and functions."""
    inference, recording = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    keeps = torch.is_autocast_cache_enabled()
    casts = [(kind, torch.get_autocast_dtype(kind)) for kind in _kinds() if torch.is_autocast_enabled(kind)]
    modes = [mode for mode in get_current_function_mode_stack() if not _is_ours(mode)]

    @contextmanager
    def there() -> Iterator[None]:
        with ExitStack() as stack:
            if inference:  # which sets the mode of gradients too
                stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.set_grad_enabled(recording))
            for kind, dtype in casts:
                stack.enter_context(torch.autocast(kind, dtype, cache_enabled=keeps))
            for mode in modes:  # not entered: a mode may note where it has been, as that of a device does
                push_mode(mode)
                stack.callback(pop_mode)
            yield

    return there


def _is_ours(mode: Any) -> bool:
    """Tell whether a mode is of this library: its state is that of one call in one thread."""
    return type(mode).__module__.partition(".")[0] == "torchpure"
