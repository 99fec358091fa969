"""torch's thread-local settings, which a new thread does not inherit: gradient mode, autocast, function modes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from torchpure._torch import get_current_function_mode_stack, pop_mode, push_mode
from torchpure.transforms.engine import active_autocasts, with_autocasts


def capture_settings() -> Callable[[], AbstractContextManager[None]]:
    """Return a context manager that applies the settings of this thread in another thread."""
    inference, grad_enabled = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    cache_enabled = torch.is_autocast_cache_enabled()
    autocasts = active_autocasts()
    modes = [mode for mode in get_current_function_mode_stack() if not _is_ours(mode)]

    @contextmanager
    def applied() -> Iterator[None]:
        with ExitStack() as stack:
            if inference:  # it sets the gradient mode too
                stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.set_grad_enabled(grad_enabled))
            stack.enter_context(with_autocasts(autocasts, cache=cache_enabled))
            for mode in modes:  # pushed, not entered: `torch.device` records in __enter__ which device it replaces
                push_mode(mode)
                stack.callback(pop_mode)
            yield

    return applied


def _is_ours(mode: Any) -> bool:
    """Tell whether a mode belongs to this library: its state is that of one call in one thread."""
    return type(mode).__module__.partition(".")[0] == "torchpure"
