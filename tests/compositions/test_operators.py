"""No operator of torch's database is silently wrong in a composition: a part of it here, all of it with `make proof`."""

import itertools
import logging
import zlib
from functools import partial

import pytest
import torch
from operator_database import COMPOSITIONS, DERIVED, GRAPHS, JIT, MAPPED, operators, outcome, problems, word
from table import HEAD, TARGET

import torchpure as tp
from torchpure.errors import TransformError

OPERATORS = operators()
ONCE_WRONG = {  # in torch.func, and there still
    "scatter_reduce_prod", "triangular_solve", "cholesky_inverse", "select_scatter", "column_stack",
    "nn_functional_linear_cross_entropy_chunked", "nn_functional_linear_cross_entropy_chunked_none",
    "linalg_det", "linalg_slogdet", "logdet", "linalg_solve", "linalg_solve_ex", "linalg_tensorsolve", "linalg_eigh",
    "linalg_householder_product", "nn_functional_layer_norm", "nn_functional_batch_norm", "nn_functional_instance_norm",
    "native_layer_norm", "native_batch_norm",
}  # fmt: skip
EVERY_DAY = sorted(name for name in OPERATORS if name in ONCE_WRONG or zlib.crc32(name.encode()) % 12 == 0)


MAY_REFUSE = {"scatter_reduce_prod", "native_batch_norm", "_native_batch_norm_legit"}  # where torch is right at times
NEED_NUMBERS = {"combinations", "corrcoef", "cov", "index_reduce_prod", "linalg_lstsq", "linalg_lstsq_grad_oriented", "masked_select", "scatter_reduce_prod"}  # fmt: skip


def check(name, compositions):
    """Nothing is wrong, and nothing is refused that torch.func can do: all would be, in a library that only raises."""
    logging.disable(logging.ERROR)  # torch's tracer logs what it refuses
    try:
        found, words = list(problems(OPERATORS[name])), {}
        for composition in compositions if found else []:
            outcomes = [outcome(problem, composition) for problem in found]
            words[composition] = word(outcomes)
            assert words[composition] != "wrong", (composition, outcomes)
            if words[composition] == "refused":
                assert may_refuse(name, composition, found, words), (composition, outcomes)
    finally:
        logging.disable(logging.NOTSET)


def may_refuse(name, composition, found, words):
    if composition == JIT:
        traced = [outcome(found[0], c) for c in (*DERIVED, *MAPPED)]
        return name in NEED_NUMBERS or word(traced) == "refused"
    if composition in GRAPHS:
        return name in NEED_NUMBERS or words[composition.removeprefix("graph of ")] == "refused"
    return name in MAY_REFUSE or word([outcome(p, composition, torch.func) for p in found]) in {"refused", "wrong"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EVERY_DAY)
def test_an_operator_is_never_silently_wrong(name):
    check(name, [composition for composition in COMPOSITIONS if composition not in GRAPHS])


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in EVERY_DAY if zlib.crc32(name.encode()) % 27 == 0])
def test_a_compiled_operator_is_never_silently_wrong(name):
    check_compiled(name)


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_in_every_composition(name):
    check(name, COMPOSITIONS)


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_compiled_operator(name):
    check_compiled(name)


def check_compiled(name):
    """One sample of an operator, since it is compiled once for all compositions."""
    logging.disable(logging.ERROR)
    try:
        for problem in itertools.islice(problems(OPERATORS[name]), 1):
            said = outcome(problem, JIT)
            assert not said.startswith("wrong"), said
            if said.startswith("refused"):
                assert may_refuse(name, JIT, [problem], {}), said
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", ["scatter_reduce_prod", "triangular_solve", "cholesky_inverse", "select_scatter"])
def test_torch_is_wrong_there_still(name):
    """When this fails, torch has been repaired: give its row in transforms/overrides an `until`."""
    words = {
        outcome(problem, composition, torch.func)[:5]
        for problem in problems(OPERATORS[name])
        for composition in COMPOSITIONS
        if composition not in GRAPHS
    }
    assert "wrong" in words


def test_an_operation_of_a_program_has_the_rule_of_the_function():
    x = torch.rand(3, 4, dtype=torch.float64)

    def scattered(x):  # torch cannot map it
        return torch.ops.aten.as_strided_scatter(x, x[:1], (1,), (1,), 0)

    torch.testing.assert_close(tp.vmap(scattered)(x), torch.stack(list(map(scattered, x))))


def test_what_has_no_rule_is_an_error_that_names_it():
    x = torch.rand(3, 4, dtype=torch.float64)
    index = torch.tensor([0, 1, 0])
    with pytest.raises(
        TransformError, match=r"jvp: `.*, line \d+ of test_operators.py, uses `index_reduce`, which has no forward"
    ):
        tp.jvp(lambda x: x.index_reduce(0, index, x, "mean"), (x,), (x,))
    with pytest.raises(
        TransformError, match="vjp: .* needs the derivative of `.*_segment_reduce_backward`, which torch lacks"
    ):
        total = partial(torch.segment_reduce, reduce="sum", lengths=torch.tensor([3]))
        tp.vjp(lambda x: tp.vjp(lambda x: total(x).sum(), x)[1](x.sum())[0], x)[1](x)


def test_the_page_of_operators_is_of_these_compositions():
    text = TARGET.read_text(encoding="utf-8")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    current = text.startswith(HEAD) and rows == ["composition", *COMPOSITIONS, JIT]
    assert current, "docs/operators.md is not of these compositions: run `make operators`"
