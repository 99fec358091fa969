"""Operations of torch whose rules are wrong or missing, and the rules that run instead.

Each family has a file with its rules and their rows, `OVERRIDES`. `_registry.py` collects the rows; `_mode.py` and
`_retry.py` apply them.
"""

from ._as_member import as_member
from ._attention import attention_weights
from ._mode import UserCall, in_transform, in_transform_rule, overriding
from ._registry import IN_TRANSFORM, INTERCEPTED, OUTERMOST_GRAD, OUTERMOST_NAMES, SEARCHED, SEARCHED_NAMES
from ._retry import run_transform

__all__ = [
    "INTERCEPTED",
    "IN_TRANSFORM",
    "OUTERMOST_GRAD",
    "OUTERMOST_NAMES",
    "SEARCHED",
    "SEARCHED_NAMES",
    "UserCall",
    "as_member",
    "attention_weights",
    "in_transform",
    "in_transform_rule",
    "overriding",
    "run_transform",
]
