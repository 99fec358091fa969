import math

import pytest

from torchpure.data._domain import parse_domain
from torchpure.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:1", {"x": (0, 1)}),
        ("-1:1", {"x": (-1, 1)}),
        ("x=0:2*pi", {"x": (0, 2 * math.pi)}),
        (" t = -pi : pi , y=0:1", {"t": (-math.pi, math.pi), "y": (0, 1)}),
        ("x=minimum(1,0):maximum(2,3),y=0:1", {"x": (0, 3), "y": (0, 1)}),
        ("x_1=0:1e3", {"x_1": (0, 1000)}),
    ],
)
def test_bounds(text, expected):
    assert parse_domain(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wanted LOW:HIGH for `x`"),
        ("1", "wanted LOW:HIGH"),
        ("0:1:2", "wanted LOW:HIGH"),
        ("0:", "`x`: the expression is empty"),
        ("x=0:1,x=0:2", "`x` appears twice"),
        ("2=0:1", "'2' is not a name"),
        ("lambda=0:1", "'lambda' is not a name"),
        ("é=0:1", "'é' is not a name"),
        ("pi=0:1", "`pi` is already a function or constant"),
        ("sin=0:1", "`sin` is already a function or constant"),
        ("1:0", "LOW < HIGH, got 1:0"),
        ("1:1", "LOW < HIGH"),
        ("0:1/0", "must be finite"),
        ("0:log(-1)", "must be finite"),
        ("-1e200:0", "at most 1e\\+100"),
        ("0:y", "unknown name `y`"),
        ("0:1 1", "not an expression"),
        (",".join(f"x{i}=0:1" for i in range(17)), "17 inputs; at most 16"),
    ],
)
def test_refused(text, message):
    with pytest.raises(InputError, match=f"--domain.*{message}"):
        parse_domain(text)
