"""Random draws inside a module: detect them, refuse them, or answer them from a key."""

from ._generator_guard import (
    APPLY_ADVICE,
    CALL_ADVICE,
    call_with_key,
    construct_with_key,
    run_refusing_draws,
    run_with_keyed_draws,
)
from ._keyed_mode import KeyedDraws, RefuseDraws
from ._per_member import for_each_member, member_flag, per_member

__all__ = [
    "APPLY_ADVICE",
    "CALL_ADVICE",
    "KeyedDraws",
    "RefuseDraws",
    "call_with_key",
    "construct_with_key",
    "for_each_member",
    "member_flag",
    "per_member",
    "run_refusing_draws",
    "run_with_keyed_draws",
]
