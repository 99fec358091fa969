"""Operations of torch whose rules are wrong or missing, and the rules that run instead.

Each family has a file with its rules and their rows, `OVERRIDES`. `_registry.py` collects the rows; `_mode.py` and
`_retry.py` apply them.
"""

from ._attention import attention_weights
from ._mode import (
    UserCall,
    as_member,
    in_transform,
    in_transform_rule,
    only_overrides,
    overridden,
    overriding,
    paused_overrides,
)
from ._norms import note_update, updated_statistics
from ._recurrent import RECURRENT_CELLS, project_input
from ._registry import IN_TRANSFORM
from ._retry import run_transform
from ._scatter import one_hot

__all__ = [
    "IN_TRANSFORM",
    "RECURRENT_CELLS",
    "UserCall",
    "as_member",
    "attention_weights",
    "in_transform",
    "in_transform_rule",
    "one_hot",
    "only_overrides",
    "overridden",
    "note_update",
    "overriding",
    "paused_overrides",
    "project_input",
    "run_transform",
    "updated_statistics",
]
