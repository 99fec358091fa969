"""Operations of torch whose rules are wrong or missing, and the rules that run instead.

Each family has a file with its rules and their rows, `OVERRIDES`. `_registry.py` collects the rows; `_mode.py` and
`_retry.py` apply them.
"""

from ._attention import attention_weights as attention_weights
from ._mode import UserCall as UserCall
from ._mode import in_transform as in_transform
from ._mode import in_transform_rule as in_transform_rule
from ._mode import overriding as overriding
from ._registry import IN_TRANSFORM as IN_TRANSFORM
from ._registry import INTERCEPTED as INTERCEPTED
from ._registry import OUTERMOST_GRAD as OUTERMOST_GRAD
from ._registry import OUTERMOST_NAMES as OUTERMOST_NAMES
from ._registry import SEARCHED as SEARCHED
from ._registry import SEARCHED_NAMES as SEARCHED_NAMES
from ._retry import run_transform as run_transform
