"""How single operations act on derivatives, and what to say where torch has no derivative."""

from ._closed_forms import ClosedForm, closed_form
from ._composites import BLOCKWISE, COMPOSITES, SERIES, run_composite
from ._explain import NoRuleError, deriving, explained, is_kinked, kink_of, warn_of_kinks
from ._layers import Pairs, Step, push
from ._recurrences import Series, composed, recurrence_of, scaled

__all__ = [
    "BLOCKWISE",
    "COMPOSITES",
    "ClosedForm",
    "NoRuleError",
    "Pairs",
    "SERIES",
    "Series",
    "Step",
    "closed_form",
    "composed",
    "deriving",
    "explained",
    "is_kinked",
    "kink_of",
    "push",
    "recurrence_of",
    "run_composite",
    "scaled",
    "warn_of_kinks",
]
