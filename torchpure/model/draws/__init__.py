"""Draws of a module: seen, refused, or answered from a key."""

from ._generator_guard import APPLY_ADVICE as APPLY_ADVICE
from ._generator_guard import CALL_ADVICE as CALL_ADVICE
from ._generator_guard import keyed_call as keyed_call
from ._generator_guard import keyed_construction as keyed_construction
from ._generator_guard import keyed_draws as keyed_draws
from ._generator_guard import refusing_draws as refusing_draws
from ._keyed_mode import KeyedDraws as KeyedDraws
from ._keyed_mode import RefuseDraws as RefuseDraws
from ._per_member import for_each_member as for_each_member
from ._per_member import member_flag as member_flag
from ._per_member import own as own
