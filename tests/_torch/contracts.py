"""The form of a contract: what this library relies on of names that torch does not promise to keep."""

from collections.abc import Callable
from typing import Any

CONTRACTS: dict[str, Callable[[], None]] = {}  # an entry of the door -> what it is relied on for
CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}  # an entry -> a call of it, in the form of the library's


def relied_on(*names: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a function, which asserts, as the contract of these entries."""

    def register(holds: Callable[[], None]) -> Callable[[], None]:
        for name in names:
            assert name not in CONTRACTS, f"{name} has two contracts"
            CONTRACTS[name] = holds
        return holds

    return register


def called(name: str, *args: Any, **kwargs: Any) -> None:
    """Write down how an entry is called; a place holder does for a value."""
    CALLS[name] = (args, kwargs)
