"""Derivatives at the borders of formulas: a part of the census here, all of it with `make proof`."""

import zlib

import pytest
import torch
from borders import JIT, WORDS, Border, borders, derivative, outcome
from table_of_borders import HEAD, TARGET
from torch.torch_version import TorchVersion

BORDERS = borders()
SINGLE, DOUBLE = torch.float32, torch.float64


def _names(some: list[Border]) -> list[str]:
    return [f"{border.function} at {border.place}" for border in some]


def _share(parts: int) -> list[Border]:
    return [
        border for border, name in zip(BORDERS, _names(BORDERS), strict=True) if zlib.crc32(name.encode()) % parts == 0
    ]


EVERY_DAY, COMPILED_DAILY = _share(24), _share(140)


def check(border: Border, words: list[str], dtype: torch.dtype) -> None:
    found = {word: outcome(border, word, dtype) for word in words}
    assert {word: said for word, said in found.items() if said != "right"} == {}


@pytest.mark.parametrize("border", EVERY_DAY, ids=_names(EVERY_DAY))
def test_derivatives_at_a_border_are_right(border):
    check(border, WORDS, DOUBLE)


@pytest.mark.compile
@pytest.mark.parametrize("border", COMPILED_DAILY, ids=_names(COMPILED_DAILY))
def test_compiled_derivatives_at_a_border_are_right(border):
    check(border, [JIT], DOUBLE)


@pytest.mark.proof
@pytest.mark.parametrize("border", BORDERS, ids=_names(BORDERS))
def test_every_derivative_at_every_border(border):
    check(border, WORDS, DOUBLE)


@pytest.mark.proof
@pytest.mark.parametrize("border", BORDERS, ids=_names(BORDERS))
def test_every_compiled_derivative_at_every_border(border):
    check(border, [JIT], DOUBLE)


FAR = {  # the squares of these numbers are infinite or zero, and so is torch's value of a norm
    "vector_norm": torch.linalg.vector_norm,
    "matrix_norm": lambda x: torch.linalg.matrix_norm(x[None]),
    "pairwise_distance": lambda x: torch.nn.functional.pairwise_distance(x, x * 0, eps=0.0),
    "dist": lambda x: torch.dist(x, x * 0),
    "cdist": lambda x: torch.cdist(x[None], x[None] * 0).sum(),
    "abs of complex": lambda x: torch.complex(x[0], x[1]).abs(),
}


@pytest.mark.parametrize("scale", [1e200, 1e-200])
@pytest.mark.parametrize("name", FAR)
def test_squares_of_a_norm_that_overflow_do_not_reach_its_derivatives(name, scale):
    """The gradient that is outermost and alone is torch's own, which follows torch's value."""
    f = lambda s: FAR[name](torch.tensor([3.0, 4.0], dtype=DOUBLE) * scale + s * torch.eye(2, dtype=DOUBLE)[0])  # noqa: E731
    zero = torch.zeros((), dtype=DOUBLE)
    for word in ("f", "m", "j", "rr", "rf", "fr", "ff", "jj"):
        wanted = 0.6 if len(word) == 1 else 0.128 / scale
        torch.testing.assert_close(float(derivative(word, f)(zero)), wanted, msg=lambda m, word=word: f"{word}: {m}")


WRONG_BEFORE = {"sinc": "99", "cumprod": "99", "linalg.det": "2.15", "special.bessel_j0": "2.15"}  # versions of torch


@pytest.mark.parametrize("function", [*WRONG_BEFORE])
def test_torch_is_wrong_there_still(function):
    """When this fails, torch has been repaired: say in WRONG_BEFORE since which version."""
    if TorchVersion(torch.__version__) >= WRONG_BEFORE[function]:
        pytest.skip("torch has been repaired")
    found = {
        outcome(border, word, lib=torch.func).partition(":")[0]
        for border in BORDERS
        if border.function == function
        for word in ("r", "ff", "rrf")
    }
    assert "wrong" in found


def test_the_page_of_borders_is_of_these_functions():
    text = TARGET.read_text(encoding="utf-8")
    rows = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert text.startswith(HEAD) and rows == {border.function for border in BORDERS}, "run `make borders`"
