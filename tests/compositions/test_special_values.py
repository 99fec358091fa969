"""Compiled programs compute what eager ones do, on special values too.

Tolerances: 1e-4 relative and absolute in float32, 1e-9 in float64; 1e-2 where a program rounds to half precision. NaN,
infinities, integers and bools are equal.
"""

import warnings

import pytest
import special_values
import torch
from daily import daily

import torchpure as tp

TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}


def check(seed: int) -> int:
    """Compare one random case in a loop, and return the number of its programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the variance of one number
        case = special_values.case(seed)
        looped = special_values.in_scan(case.run)
        wanted, got = looped(*case.inputs), tp.jit(looped)(*case.inputs)
    for name, one, two in zip(case.names, wanted, got, strict=True):
        rounded = any(f"= {half}(" in name for half in special_values.HALVES)
        tolerance = 1e-2 if rounded else TOLERANCES[case.inputs[0].dtype]
        torch.testing.assert_close(
            two,
            one,
            rtol=tolerance,
            atol=tolerance,
            equal_nan=True,
            msg=lambda m, name=name: f"seed {seed}, {name}: {m}",
        )
    return len(case.names)


@pytest.mark.compile
@pytest.mark.parametrize("seed", range(4))
def test_random_programs_on_special_values(seed):
    assert check(seed) > 20


@pytest.mark.proof
def test_twenty_thousand_random_programs_on_special_values():
    assert sum(map(check, range(4, 560))) >= 20_000


BOOLS, INDEX = torch.tensor([True, False, True]), torch.tensor([0, 0, 1])
LARGE = torch.tensor([1e20, 2e20, 3e20])
WERE_WRONG = {
    "index_add of bools": lambda: (BOOLS, lambda b: b.index_add(0, INDEX, b, alpha=-1)),
    "index_add of bools and no factor": lambda: (BOOLS, lambda b: b.index_add(0, INDEX, b, alpha=0)),
    "index_add of bools and a half": lambda: (
        BOOLS, lambda b: b.index_add(0, INDEX, b, alpha=-1) & (b.half() > 0)),
    "std of large numbers": lambda: (LARGE, lambda x: x.std()),
    "std of large rows": lambda: (LARGE.expand(2, 3).contiguous(), lambda x: x.std(-1, correction=0, keepdim=True)),
    "var of large numbers": lambda: (LARGE / 30, lambda x: x.var(0)),
    "acosh by inductor": lambda: (LARGE * 1e15, lambda x: x.half().isnan() + x.acosh()),
    "acosh far below its domain by inductor": lambda: (-LARGE.double() * 1e18, lambda x: x.half().isnan() + x.acosh()),
    "addcdiv by inductor": lambda: (LARGE * 1e18, lambda x: x.half().isnan() + torch.addcdiv(x, x, x, value=-2.0)),
    "remainder by inductor": lambda: (LARGE, lambda x: x.half().isnan() + torch.remainder(x, torch.full_like(x, 7.0))),
    "floor_divide by inductor": lambda: (
        LARGE / -LARGE[0], lambda x: x.half().isnan() + torch.floor_divide(x, torch.full_like(x, torch.inf))),
    "std by inductor": lambda: (LARGE, lambda x: x.half().isnan() + x.std()),
    "rounding to bfloat16": lambda: (torch.tensor([1.001, 3.3, -7.77]), lambda x: x.bfloat16().float() * 1000),
    "rounding to float16": lambda: (torch.tensor([1.0001, 3.3, 1e9]), lambda x: x.half().float() * 1000),
}  # fmt: skip


@pytest.mark.compile
@pytest.mark.parametrize("name", daily(WERE_WRONG, every=3))
def test_what_was_wrong_is_right(name):
    x, f = WERE_WRONG[name]()
    looped = lambda x: tp.scan(lambda carry, _: (carry, f(carry)), x, length=2)[1]  # noqa: E731
    for program in (f, looped):
        torch.testing.assert_close(tp.jit(program)(x), program(x), equal_nan=True)
