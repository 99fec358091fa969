"""Which cases run daily, with `make test`, and which only with `make proof`."""

from collections.abc import Iterable
from typing import Any

import pytest

DAILY, PROOF = (), (pytest.mark.proof,)


def proof(*values: Any, id: str | None = None) -> Any:
    """Return a case that `make proof` runs."""
    return pytest.param(*values, id=id, marks=PROOF)


def daily(cases: Iterable[Any], every: int) -> list[Any]:
    """Let the first case run daily, and each `every`-th after it; `make proof` runs the others.

    A tuple holds the arguments of one case. Over a product choose a number that shares no divisor with the length of
    its last part: each part then comes by turns.
    """
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*row, marks=PROOF if number % every else DAILY) for number, row in enumerate(rows)]


def without(slow: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """Let `make proof` run the cases that are in `slow`; the others run daily."""
    rare, rows = set(slow), list(cases)
    assert rare <= set(rows), f"no cases: {rare - set(rows)}"
    return [
        pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=PROOF if row in rare else DAILY)
        for row in rows
    ]
