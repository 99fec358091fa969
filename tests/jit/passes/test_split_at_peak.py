"""Large programs are split in two where most memory is alive."""

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.jit._trace import trace
from torchpure.jit.passes import _split_at_peak
from torchpure.jit.passes._split_at_peak import split_at_peak


def _step():
    net = tp.functional(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)).double())
    opt = tp.optim.adam(1e-2)
    x, y = torch.randn(5, 6, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)

    def step(params, state, x):
        loss, grads = tp.value_and_grad(lambda p: nn.functional.mse_loss(net(p, x), y))(params)
        params, state = opt.step(grads, state, params)
        return params, state, loss, x

    return step, (net.params, opt.init(net.params), x)


def _traced(fn, args):
    leaves, structure = tp.tree.flatten(args)
    found = trace(fn, lambda values: (tp.tree.unflatten(structure, list(values)), {}), leaves)
    return found.module, leaves


def test_both_parts_together_compute_what_the_program_does(monkeypatch):
    monkeypatch.setattr(_split_at_peak, "MIN_PEAK_BYTES", 64)
    module, leaves = _traced(*_step())
    parts = split_at_peak(module)
    assert parts is not None
    crossing = parts.first(*[leaves[i] for i in parts.first_reads])
    given = [*leaves, *crossing]
    known = [*given, *parts.second(*[given[i] for i in parts.second_reads])]
    for pick, wanted in zip(parts.result_positions, module(*leaves), strict=True):
        assert torch.equal(known[pick], wanted)
    early, late = (sum(n.op == "call_function" for n in part.graph.nodes) for part in (parts.first, parts.second))
    assert early > 5 < late


def test_a_small_program_stays_whole():
    module, _ = _traced(*_step())
    assert split_at_peak(module) is None


def test_the_split_is_before_rematerialised_work(monkeypatch):
    monkeypatch.setattr(_split_at_peak, "MIN_PEAK_BYTES", 64)
    w = torch.randn(6, 6, dtype=torch.float64)

    def loss(w):
        for _ in range(3):
            w = tp.remat(lambda v: torch.tanh(v @ v) @ v)(w)
        return w.sum()

    parts = split_at_peak(_traced(tp.grad(loss), (w,))[0])
    assert parts is not None
    products = [sum("aten.mm" in str(n.target) for n in part.graph.nodes) for part in (parts.first, parts.second)]
    assert products == [6, 3 + 12]  # per layer: the first product again, and four in its backward pass


@pytest.mark.compile
def test_a_donated_step_that_is_split(monkeypatch):
    monkeypatch.setattr(_split_at_peak, "MIN_PEAK_BYTES", 1 << 20)
    net = tp.functional(nn.Sequential(nn.Linear(600, 700), nn.ReLU(), nn.Linear(700, 600)))
    opt = tp.optim.sgd(1e-2, momentum=0.9)
    x = torch.randn(900, 600)

    def step(params, state):
        loss, grads = tp.value_and_grad(lambda p: net(p, x).square().mean())(params)
        return *opt.step(grads, state, params), loss

    params, state = tp.tree.map(torch.clone, (net.params, opt.init(net.params)))
    wanted = step(*step(params, state)[:2])
    compiled = tp.jit(step, donate=(0, 1))
    found = compiled(*compiled(params, state)[:2])
    for one, two in zip(tp.tree.leaves(found), tp.tree.leaves(wanted), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    with pytest.raises(tp.errors.ImpureError, match="donated"):
        params["0.weight"].sum()
