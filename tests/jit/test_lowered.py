"""What `lower` shows and counts."""

import pytest
import torch

import torchpure as tp
from torchpure.jit import Cost
from torchpure.transforms.calls._primitives import scan_p, switch_p, while_p

D = torch.float64
X = torch.ones(4, 3, dtype=D)
W = torch.ones(3, 5, dtype=D)


def f(x, w):
    return torch.tanh(x @ w) + torch.tanh(x @ w)


def test_a_lowered_function_shows_its_programs():
    lowered = tp.jit(f).lower(X, w=W)
    assert lowered.traced.count("aten.mm") == 2 and lowered.passed.count("aten.mm") == 1
    assert "def forward" in lowered.traced and "tanh" in lowered.source
    assert lowered.backend == "native"
    parts = (lowered.traced, lowered.passed, "native", lowered.source)
    wanted = zip(("traced", "passed", "backend", "source"), parts, strict=True)
    assert str(lowered) == "\n\n".join(f"# {name}\n{text}" for name, text in wanted)


@pytest.mark.compile
def test_a_lowered_function_says_why_it_is_not_native():
    lowered = tp.jit(lambda x: x.to(torch.bfloat16) + 1).lower(X)
    assert lowered.backend == "inductor (not native: tensors of torch.bfloat16)"
    lowered = tp.jit(lambda x: torch.fft.fft(x)).lower(X)
    assert lowered.backend.startswith("interpreted (not native: ")


def test_a_lowered_function_shows_bodies():
    lowered = tp.jit(lambda x: scan_p(lambda c, r: (c + r.sin(),), (x[0],), (x,), (), 4, False)).lower(X)
    assert "aten.sin" in lowered.traced and "aten.sin" in lowered.passed


COSTS = {
    "product": (lambda x, w: x @ w, Cost(2 * 4 * 3 * 5, 8 * (12 + 15 + 20))),
    "added product": (lambda x, w: torch.addmm(w[0], x, w), Cost(2 * 4 * 3 * 5, 8 * (12 + 15 + 20))),
    "batched product": (lambda x, w: torch.bmm(x[None], w[None]), Cost(2 * 4 * 3 * 5, 8 * (12 + 15 + 20))),
    "pointwise": (lambda x, w: torch.sin(x) * 2, Cost(24, 8 * (12 + 15 + 12))),
    "reduction": (lambda x, w: x.sum(), Cost(12, 8 * (12 + 15 + 1))),
    "views": (lambda x, w: (x.t(), w[1:].reshape(-1), x.expand(2, 4, 3)), Cost(0, 8 * (12 + 15 + 12 + 10 + 24))),
    "copies": (lambda x, w: torch.cat([x, x]), Cost(0, 8 * (12 + 15 + 24))),
    "once": (f, Cost(2 * 4 * 3 * 5 + 20 + 20, 8 * (12 + 15 + 20))),
    "constants": (lambda x, w: x * torch.arange(3, dtype=D), Cost(12, None)),
    "scan": (lambda x, w: scan_p(lambda c, r: (c + r,), (x[0],), (x,), (), 4, False), Cost(4 * 3, None)),
    "while": (
        lambda x, w: while_p(lambda i, c: i < 9, lambda i, c: (i + 1, c * 2), (torch.tensor(0), x), ()),
        Cost(1 + 1 + 12, None),
    ),
    "switch": (
        lambda x, w: switch_p((x.sum() > 0).long(), (lambda x: (x.sin(),), lambda x: (x.sin().cos(),)), (x,)),
        Cost(12 + 1 + 24, None),
    ),
}


def test_costs():
    for name, (fn, wanted) in COSTS.items():
        cost = tp.jit(fn).lower(X, W).cost()
        assert cost.operations == wanted.operations, name
        assert wanted.bytes is None or cost.bytes == wanted.bytes, name


def test_a_gradient_costs_three_times_the_product():
    def loss(w, x):
        return (x @ w).sum()

    cost = tp.jit(tp.grad(loss)).lower(W, X).cost()
    assert 2 * 60 <= 2 * cost.operations <= 3 * 2 * 120 + 200
