"""Random draws inside a module: detect them, refuse them, or answer them from a key."""

from ._generator_guard import APPLY_ADVICE as APPLY_ADVICE
from ._generator_guard import CALL_ADVICE as CALL_ADVICE
from ._generator_guard import call_with_key as call_with_key
from ._generator_guard import construct_with_key as construct_with_key
from ._generator_guard import run_refusing_draws as run_refusing_draws
from ._generator_guard import run_with_keyed_draws as run_with_keyed_draws
from ._keyed_mode import KeyedDraws as KeyedDraws
from ._keyed_mode import RefuseDraws as RefuseDraws
from ._per_member import for_each_member as for_each_member
from ._per_member import member_flag as member_flag
from ._per_member import per_member as per_member
