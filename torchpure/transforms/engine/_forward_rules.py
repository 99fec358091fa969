"""Forward derivatives that torch implements in Python: loaded at the first forward derivative."""

import re
import warnings
from functools import lru_cache
from typing import Any

from torchpure._torch import maybe_load_decompositions

_SCRIPT_WARNINGS = ("ignore", re.compile(r"`torch\.jit\.script` is "), Warning, None, 0)  # an entry of warnings.filters


def load_forward_rules() -> None:
    """Load, once, the forward derivatives that torch has in Python, without torch's warning about scripts."""
    _load()


# torch.compile then calls it while it traces, and does not look inside, as torch.compiler.assume_constant_result does
load_forward_rules._dynamo_marked_constant = True  # pyrefly: ignore[missing-attribute]


@lru_cache(maxsize=1)
def _load() -> None:
    """Do what torch's own `make_dual` does at its first call.

    torch scripts these rules, and warns its first caller that scripts are deprecated. Users cannot change that. Other
    threads may change the filters of warnings at the same time, and `warnings.catch_warnings` would undo their changes.
    So one filter is inserted, and removed again.
    """
    filters: Any = warnings.filters  # a list, as its documentation says
    filters.insert(0, _SCRIPT_WARNINGS)
    try:
        maybe_load_decompositions()
    finally:
        if _SCRIPT_WARNINGS in filters:
            filters.remove(_SCRIPT_WARNINGS)
