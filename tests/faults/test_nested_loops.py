"""Nested tensors in loops and traces: the right value, or an error that says how to pad them."""

import pytest
import torch
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import TransformError

pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")]
ROWS = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0, 5.0])]
LAYOUTS = {"jagged": torch.jagged, "strided": torch.strided}


def total(rows):
    return torch.nested.to_padded_tensor(rows, 0.0).sum()


RIGHT = {
    "scan": lambda rows: tp.scan(lambda carry, _: (carry * 2, None), rows, length=2)[0],
    "while_loop": lambda rows: tp.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] * 2), (0, rows))[1],
    "fori_loop": lambda rows: tp.fori_loop(0, 2, lambda i, carry: carry * 2, rows),
    "cond": lambda rows: tp.cond(torch.tensor(True), lambda rows: rows * 4, lambda rows: rows, rows),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RIGHT)
def test_carries(name, layout):
    rows = torch.nested.nested_tensor(ROWS, layout=LAYOUTS[layout])
    if layout == "strided" and name != "cond":
        with pytest.raises(
            TransformError, match="the carry at `.*` is a nested tensor, .* give it layout=torch.jagged"
        ):
            RIGHT[name](rows)
        return
    assert_close(total(RIGHT[name](rows)), torch.tensor(60.0))


def test_the_derivative_of_a_loop_over_jagged_rows():
    rows = torch.nested.nested_tensor(ROWS, layout=torch.jagged)
    f = lambda w: total(tp.fori_loop(0, 2, lambda i, carry: carry * w, rows))  # noqa: E731
    assert_close(tp.grad(f)(torch.tensor(2.0)), torch.tensor(60.0))


REFUSED = {
    "scan": lambda rows: tp.scan(lambda carry, _: (carry, rows * 2), torch.tensor(0.0), length=2),
    "map": lambda rows: tp.map(lambda row: row * 2, rows),
    "associative_scan": lambda rows: tp.associative_scan(torch.add, rows),
    "eval_shape": lambda rows: tp.eval_shape(lambda rows: rows * 2, rows),
    "make_graph": lambda rows: tp.make_graph(lambda rows: rows * 2)(rows),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, layout):
    with pytest.raises(
        TransformError, match=f"^{name}: .* nested tensor, .* pad it with torch.nested.to_padded_tensor"
    ):
        REFUSED[name](torch.nested.nested_tensor(ROWS, layout=LAYOUTS[layout]))
