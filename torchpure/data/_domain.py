"""The domain of an expression, from which points are drawn: `0:2*pi`, or `x=0:1,y=-1:1`."""

import keyword
import math
import re

from torchpure.errors import InputError

from ._expression import compile_expression
from ._functions import CONSTANTS, FUNCTIONS

MAX_INPUTS = 16
LARGEST = 1e100  # squares of larger numbers overflow

Domain = dict[str, tuple[float, float]]


def parse_domain(text: str) -> Domain:
    """Parse the bounds of each input; a bare `LOW:HIGH` is for x.

    Raises:
        InputError: a name, a bound or the syntax is wrong.

    >>> parse_domain("x=0:1,y=-1:2**3")
    {'x': (0.0, 1.0), 'y': (-1.0, 8.0)}
    """
    # A comma in a function call is not followed by `name=`.
    parts = re.split(r",(?=\s*\w+\s*=)", text)
    if len(parts) > MAX_INPUTS:
        raise InputError(f"--domain: {len(parts)} inputs; at most {MAX_INPUTS} are allowed")
    domain: Domain = {}
    for part in parts:
        head, equals, bounds = part.partition("=")
        name, bounds = (head.strip(), bounds) if equals else ("x", part)
        _check_name(name)
        if name in domain:
            raise InputError(f"--domain: `{name}` appears twice")
        domain[name] = _bounds(name, bounds)
    return domain


def _check_name(name: str) -> None:
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name):
        raise InputError(f"--domain: {name[:40]!r} is not a name for an input; wanted x=LOW:HIGH,y=LOW:HIGH")
    if name in CONSTANTS or name in FUNCTIONS:
        raise InputError(f"--domain: `{name}` is already a function or constant of expressions; choose another name")


def _bounds(name: str, text: str) -> tuple[float, float]:
    ends = text.split(":")
    if len(ends) != 2:
        raise InputError(f"--domain: wanted LOW:HIGH for `{name}`, such as 0:2*pi, got {text[:40]!r}")
    low, high = (float(compile_expression(end, (), caller=f"--domain, `{name}`")({})) for end in ends)
    if not (math.isfinite(low) and math.isfinite(high) and max(abs(low), abs(high)) <= LARGEST):
        raise InputError(
            f"--domain: the bounds of `{name}` must be finite, at most {LARGEST:g} in size, got {low:g}:{high:g}"
        )
    if not low < high:
        raise InputError(f"--domain: `{name}` needs LOW < HIGH, got {low:g}:{high:g}")
    return low, high
