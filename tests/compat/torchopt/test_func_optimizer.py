"""The graph that FuncOptimizer keeps: exact meta-gradients, an error past its end, constant memory."""

import gc
import weakref

import pytest
import torch
from daily import proof

import torchpure.compat.torchopt as ours


def train(optimizer, steps, detach, inplace=False):
    """Return how many of the steps' graphs are alive at the end: each has a saved tensor that nothing else holds."""
    w = torch.linspace(-1, 1, 64).requires_grad_()
    params, alive = (w,), []
    for _ in range(steps):
        held = torch.rand(64)
        alive.append(weakref.ref(held))
        loss = (params[0] * held).tanh().square().sum()
        params = optimizer.step(loss, params, inplace=inplace)
        if detach:
            params = tuple(p.detach().requires_grad_() for p in params)
        del held, loss
    gc.collect()
    return sum(ref() is not None for ref in alive)


@pytest.mark.parametrize("steps", [500, proof(10_000)])
def test_memory_is_constant(steps):
    for make in (lambda: ours.adam(1e-2), lambda: ours.sgd(1e-2, momentum=0.9)):
        assert train(ours.FuncOptimizer(make()), steps, detach=False) <= 257
        assert train(ours.FuncOptimizer(make()), steps, detach=True) <= 2
        assert train(ours.FuncOptimizer(make()), steps, detach=False, inplace=True) <= 1


def test_torchopt_keeps_every_graph():
    theirs = pytest.importorskip("torchopt")
    assert train(theirs.FuncOptimizer(theirs.adam(1e-2)), 300, detach=True) == 300


def test_a_gradient_past_the_end_of_the_graph_is_an_error():
    optimizer = ours.FuncOptimizer(ours.sgd(0.1))
    optimizer.recorded_steps = 3
    first = params = (torch.ones(2, requires_grad=True),)
    for _ in range(3):
        params = optimizer.step((params[0] ** 2).sum(), params)
    (grad,) = torch.autograd.grad(params[0].sum(), first, retain_graph=True)
    torch.testing.assert_close(grad, torch.full((2,), 0.8**3))
    params = optimizer.step((params[0] ** 2).sum(), params)
    with pytest.raises(RuntimeError, match="more than 3 steps"):
        params[0].sum().backward()


def test_a_meta_parameter_keeps_the_graph_of_the_state():
    scale = torch.tensor(2.0, requires_grad=True)
    optimizer = ours.FuncOptimizer(ours.sgd(0.1, momentum=0.5))
    params = (torch.ones(1, requires_grad=True),)
    for _ in range(2):
        params = tuple(p.detach().requires_grad_() for p in params)
        params = optimizer.step((scale * params[0] ** 2).sum(), params)
    # p1 = 1 − 0.2 s is a constant, but its gradient is in the momentum: p2 = p1 − 0.1 (2 s p1 + 0.5 · 2 s)
    (grad,) = torch.autograd.grad(params[0].sum(), scale)
    torch.testing.assert_close(grad, torch.tensor(-0.1 * (2 * 0.6 + 1.0)))


def test_the_loss_can_be_used_again():
    """In place, its gradient is taken at the new parameters, as torchopt's is."""
    for inplace in (False, True):
        w = torch.ones(2, requires_grad=True)
        loss = (w**2).sum()
        (new,) = ours.FuncOptimizer(ours.adam(), inplace=inplace).step(loss, (w,))
        loss.backward()
        assert torch.equal(w, new) == inplace and (new < 1).all()
        torch.testing.assert_close(w.grad, 2 * w.detach())
