import math
import time

import pytest
import torch

from torchpure.data import _functions
from torchpure.data._expression import compile_expression
from torchpure.errors import InputError

X = torch.tensor([0.25, 0.5, 2.0], dtype=torch.float64)
Y = torch.tensor([1.0, -3.0, 0.5], dtype=torch.float64)

VALUES = [
    ("2*sin(x + 2*pi)", lambda x, y: 2 * torch.sin(x + 2 * math.pi)),
    ("-x**2", lambda x, y: -(x**2)),
    ("+x - -x", lambda x, y: 2 * x),
    ("2**3**2 + 0*x", lambda x, y: 512 + 0 * x),
    ("y % 2 + y // 2", lambda x, y: torch.remainder(y, 2) + torch.floor(y / 2)),
    ("x / y", lambda x, y: x / y),
    ("e*x + tau", lambda x, y: math.e * x + math.tau),
    ("x*y", lambda x, y: x * y),
    ("minimum(x, y) + maximum(x, 1)", lambda x, y: torch.minimum(x, y) + x.clamp(min=1)),
    ("where(x < y, x, y)", lambda x, y: torch.minimum(x, y)),
    ("where(0.3 < x <= 2 and not y > 0, 1, 2)", lambda x, y: torch.tensor([2.0, 1.0, 2.0])),
    ("where(x < 0.3 or y == 0.5, 1, 2)", lambda x, y: torch.tensor([1.0, 2.0, 1.0])),
    ("2*(x > 0.3)", lambda x, y: torch.tensor([0.0, 2.0, 2.0])),
    ("x != 0.5", lambda x, y: torch.tensor([1.0, 0.0, 1.0])),
    ("x >= 0.5", lambda x, y: torch.tensor([0.0, 1.0, 1.0])),
    ("  x  ", lambda x, y: x),
    ("0x10 + 1e-3 + 1_000 + 0*x", lambda x, y: 1016.001 + 0 * x),
]


@pytest.mark.parametrize(("source", "expected"), VALUES, ids=[source for source, _ in VALUES])
def test_values(source, expected):
    value = compile_expression(source, ["x", "y"])({"x": X, "y": Y})
    assert value.dtype == torch.float64
    torch.testing.assert_close(value, expected(X, Y).double(), rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("name", _functions.FUNCTIONS)
def test_every_function_gives_float64_of_the_points_shape(name):
    arguments = ["x > 0.3", "x", "x"] if name == "where" else ["x"] * _functions.FUNCTIONS[name].arity
    value = compile_expression(f"{name}({', '.join(arguments)})", ["x"])({"x": X})
    assert value.dtype == torch.float64
    assert value.shape == X.shape


def test_every_hint_names_a_known_function():
    assert set(_functions.OTHER_NAMES.values()) <= {*_functions.FUNCTIONS, "**", "%"}


REFUSED = [
    ("", "is empty"),
    ("   ", "is empty"),
    ("x +", "not an expression"),
    ("2x", "write a product with"),
    ("2 sin(x)", "write a product with"),
    ("1if x else 2", "not an expression"),
    ("x\0", "not plain ASCII"),
    ("x\n+1", "not plain ASCII"),
    ("π*x", "'π' at character 1 is not plain ASCII"),
    ("(" * 300 + "x" + ")" * 300, "51? brackets|50 brackets"),
    ("(" * 45 + "x", "not an expression"),
    ("-" * 900 + "x", "901 parts"),
    ("not " * 200 + "x", "levels deep"),
    ("**".join("x" * 150), "levels deep"),
    ("+".join("x" * 300), "599 parts"),
    ("x+" * 100_000 + "x", "200001 characters"),
    ("9" * 500, "more than 40 digits"),
    ("9" * 5000, "5000 characters"),
    ("1e999", "too large for float64"),
    ("0x" + "f" * 300, "too large for float64"),
    ("1j", "`1j` is not allowed"),
    ("True", "`True` is not allowed"),
    ("'a'", "is not allowed"),
    ("f'{x}'", "is not allowed"),
    ("...", "is not allowed"),
    ("lambda: 1", "`lambda: 1` is not allowed"),
    ("[x for x in x]", "is not allowed"),
    ("[" + "x, " * 40 + "x]", r"\.\.\.` is not allowed"),
    ("x[0]", "is not allowed"),
    ("{x}", "is not allowed"),
    ("await x", "is not allowed"),
    ("x, x", "without commas"),
    ("x^2", r"write `\*\*`"),
    ("x @ x", "is not allowed"),
    ("x << 2", "is not allowed"),
    ("~x", "write `not`"),
    ("x & 1", "write `and`"),
    ("x | 1", "write `or`"),
    ("x is 1", "is not allowed"),
    ("x in x", "is not allowed"),
    ("x if x > 0 else 1", r"write `where\(condition, a, b\)`"),
    ("np.sin(x)", "names with a dot"),
    ("x.__class__", "names with a dot"),
    ("__import__('os')", "unknown name `__import__`"),
    ("sine(x)", r"unknown name `sine` at character 1 \(did you mean `sin`\?\); known: inputs x .*sinh"),
    ("1 + ln(x)", r"unknown name `ln` at character 5 \(did you mean `log`\?\)"),
    ("y", "unknown name `y`.*--domain names others"),
    ("sin", r"`sin` is a function; write `sin\(...\)`"),
    ("pi(2)", "`pi` is not a function"),
    ("x(2)", r"write|`x\*\(...\)`"),
    ("sin(x)(x)", "is not allowed"),
    ("sin()", "takes 1 argument, got 0"),
    ("sin(x, x)", "takes 1 argument, got 2"),
    ("maximum(x)", "takes 2 arguments, got 1"),
    ("sin(x, out=x)", "got named arguments"),
    ("sin(*x)", "is not allowed"),
    ("where(x, 1, 2)", "wanted a comparison"),
    ("not x", "wanted a comparison"),
    ("x and x > 1", "wanted a comparison"),
]


@pytest.mark.parametrize(("source", "message"), REFUSED, ids=[repr(source[:20]) for source, _ in REFUSED])
def test_refused_quickly_and_in_one_line(source, message):
    start = time.perf_counter()
    with pytest.raises(InputError, match=message) as caught:
        compile_expression(source, ["x"])
    assert time.perf_counter() - start < 1
    assert "\n" not in str(caught.value)


def nested(text, depth, start="x"):
    for _ in range(depth):
        start = text.format(start)
    return start


COSTLY = {  # text, and its value at x = 0.25, 0.5, 2
    "comparisons in comparisons": (nested("0<({})<1", 45), [0.0, 0.0, 0.0]),
    "comparisons on both sides": (nested("1>({})>0", 20, "0<x<1"), [0.0, 0.0, 0.0]),
    "a chain of comparisons": ("<".join(["0", *["x"] * 199]), [0.0, 0.0, 0.0]),
    "a chain of true comparisons": ("<=".join(["0", *["x"] * 199]), [1.0, 1.0, 1.0]),
    "a sum of 200 terms": ("+".join(["x"] * 200), [50.0, 100.0, 400.0]),
    "a difference of 200 terms": ("-".join(["x"] * 200), [-49.5, -99.0, -396.0]),
    "a product of 200 factors": ("*".join(["2"] * 199 + ["x"]), [2.0**197, 2.0**198, 2.0**200]),
    "sums in brackets": (nested("x+({})", 49), [12.5, 25.0, 100.0]),
    "conditions": ("where(" + " and ".join(["x>0"] * 60) + ", 1, 2)", [1.0, 1.0, 1.0]),
    "powers in powers": ("1**" * 98 + "x", [1.0, 1.0, 1.0]),
    "a tower": ("x + 1/9**9**9**9", [0.25, 0.5, 2.0]),
    "a large hexadecimal number": ("x + 0*0x" + "f" * 250, [0.25, 0.5, 2.0]),
    "minus signs": ("-" * 98 + "x", [0.25, 0.5, 2.0]),
    "calls": (nested("abs({})", 50), [0.25, 0.5, 2.0]),
}


@pytest.mark.parametrize("name", COSTLY)
def test_time_is_linear_in_the_size(name):
    text, expected = COSTLY[name]
    compile_expression("x", ["x"])({"x": X})
    start = time.process_time()
    value = compile_expression(text, ["x"])({"x": X})
    assert time.process_time() - start < 0.3  # 5 ms; the collector may run within
    assert value.tolist() == expected


def test_each_side_of_a_chain_is_evaluated_once(monkeypatch):
    calls = []

    def sin(x):
        calls.append(1)
        return torch.sin(x)

    monkeypatch.setitem(_functions.FUNCTIONS, "sin", _functions.Function(sin, 1))
    compile_expression("0 < sin(x) < 1 > sin(x) > 0", ["x"])({"x": X})
    assert len(calls) == 2


def test_terms_of_a_chain_are_taken_from_left_to_right():
    value = compile_expression("x - 1 - 2*x/4*3 + (x - (1 - x)) - 7 % 4 ** 2 // 3", ["x"])({"x": X})
    torch.testing.assert_close(value, X - 1 - 2 * X / 4 * 3 + (X - (1 - X)) - 7 % 4**2 // 3)


@pytest.mark.parametrize("error", [RecursionError, MemoryError])
def test_a_parser_that_gives_up_is_bad_input(monkeypatch, error):
    def give_up(source, mode):
        raise error

    monkeypatch.setattr("torchpure.data._expression.ast.parse", give_up)
    with pytest.raises(InputError, match="nested too deeply"):
        compile_expression("x", ["x"])


def test_a_tower_of_powers_is_infinite():
    assert compile_expression("9**9**9", [])({}).item() == math.inf


def test_an_error_without_inputs_says_no_inputs():
    with pytest.raises(InputError, match=r"where: unknown name `x`.*known: no inputs"):
        compile_expression("x", [], caller="where")
