"""Load the forward derivatives that torch implements in Python, at the first forward derivative."""

import re
import warnings
from functools import lru_cache
from typing import Any

from torchpure._torch import maybe_load_decompositions

_SCRIPT_WARNINGS = ("ignore", re.compile(r"`torch\.jit\.script` is "), Warning, None, 0)  # an entry of warnings.filters


def load_forward_rules() -> None:
    """Load the rules once, without torch's warning about `torch.jit.script`."""
    _load()


# torch.compile then calls the function while it traces, and does not trace into it
load_forward_rules._dynamo_marked_constant = True  # pyrefly: ignore[missing-attribute]


@lru_cache(maxsize=1)
def _load() -> None:
    """Load them as `make_dual` of torch does at its first call.

    torch compiles these rules with `torch.jit.script`, which warns the caller that it is deprecated. Users cannot
    change that. `warnings.catch_warnings` would undo changes of the filters by other threads, so one filter is
    inserted and removed again.
    """
    filters: Any = warnings.filters  # a list, as its documentation says
    filters.insert(0, _SCRIPT_WARNINGS)
    try:
        maybe_load_decompositions()
    finally:
        if _SCRIPT_WARNINGS in filters:
            filters.remove(_SCRIPT_WARNINGS)
