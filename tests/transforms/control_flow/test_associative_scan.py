"""associative_scan equals a loop for every length, axis and direction, in every stack of transforms."""

from math import log2

import pytest
import torch
from loops import T, traced, unrolled
from stacks import STACKS, D, U
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import StructureError, TransformError


def compose(a, b):
    """Compose two affine maps: first x -> a.m x + a.v, then b."""
    return {"m": a["m"] * b["m"], "v": a["v"] * b["m"] + b["v"]}


def elements(u):
    return {"m": torch.sin(T[:, None] * u), "v": T[:, None] * u}


def fast(u):
    return tp.associative_scan(compose, elements(u))["v"].pow(2).sum()


def slow(u):
    return unrolled(lambda c, x: (c * x["m"] + x["v"],) * 2, u * 0, elements(u))[1].pow(2).sum()


def check(actual, expected):
    assert_close(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("stack", STACKS)
def test_an_associative_scan_is_a_loop(stack):
    check(STACKS[stack](fast), STACKS[stack](slow))


@pytest.mark.parametrize("stack", ["value", "vmap grad", "hessian"])
def test_a_traced_associative_scan_is_a_loop(stack, monkeypatch):
    check(traced(STACKS[stack], fast, monkeypatch)[1], STACKS[stack](slow))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 13])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_lengths_axes_and_directions(count, axis):
    x = torch.linspace(0.5, 1.5, count * 2, dtype=D).reshape((count, 2) if axis == 0 else (2, count))
    check(tp.associative_scan(torch.mul, x, axis=axis), x.cumprod(axis))
    check(tp.associative_scan(torch.add, x, axis=axis, reverse=True), x.flip(axis).cumsum(axis).flip(axis))


def test_the_number_of_calls_is_logarithmic():
    calls = []
    tp.associative_scan(lambda a, b: calls.append(1) or a + b, torch.ones(1000))
    assert len(calls) <= 2 * log2(1000)


def halves(a, b):
    return a.float()


def loses(a, b):
    return {"m": a}


LINE = {f.__name__: f"`{f.__name__}` (test_associative_scan.py:{f.__code__.co_firstlineno})" for f in (halves, loses)}
ERRORS = {
    "dtype": (
        (halves, T),
        TransformError,
        f"associative_scan: {LINE['halves']} must return what it is given in shape and dtype: at `.` wanted a float64 tensor "
        "of shape (2,), got a float32 tensor of shape (2,)",
    ),
    "structure": (
        (loses, T),
        StructureError,
        f"associative_scan: {LINE['loses']}: what it returns, against what it is given: trees differ at `.`: wanted a "
        "float64 tensor of shape (2,), got dict of 1",
    ),
    "number": (
        (loses, {"p": T, "q": U}),
        TransformError,
        f"associative_scan: {LINE['loses']}: elems differ in number: 4 at `p`, 2 at `q`",
    ),
    "no tensor": (
        (loses, {"p": 1}),
        TransformError,
        f"associative_scan: {LINE['loses']}: elems at `p` must be a tensor with a dimension 0, got int 1",
    ),
    "no function": ((3, T), TransformError, "associative_scan: wanted a function, got int 3"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    args, kind, message = ERRORS[name]
    with pytest.raises(kind) as error:
        tp.associative_scan(*args)
    assert str(error.value) == message
