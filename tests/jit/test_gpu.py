"""Compiled functions on a CUDA device: `pytest -m gpu`, where there is one."""

import pytest
import torch
from torch import nn

import torchpure as tp

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.compile,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def _train(device):
    net = tp.functional(nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).to(device))
    x = torch.linspace(0, 6, 40, device=device)[:, None]
    opt = tp.optim.adam(1e-2)

    def train(params):
        gradient = tp.value_and_grad(lambda p: nn.functional.mse_loss(net(p, x), torch.sin(x)))

        def step(carry, _):
            loss, grads = gradient(carry[0])
            return opt.step(grads, carry[1], carry[0]), loss

        (params, _), losses = tp.scan(step, (params, opt.init(params)), length=20)
        return params, losses

    return train, net.params


def test_a_run_on_a_device_equals_its_eager_run():
    train, params = _train("cuda")
    found, wanted = tp.jit(train)(params), train(params)
    for one, two in zip(tp.tree.leaves(found), tp.tree.leaves(wanted), strict=True):
        assert one.is_cuda
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_members_on_a_device_equal_their_solo_runs():
    train, params = _train("cuda")
    many = tp.tree.map(lambda leaf: torch.stack([leaf, leaf * 0.9, leaf * 1.1]), params)
    losses = tp.jit(tp.vmap(train))(many)[1]
    for i in range(3):
        alone = train(tp.tree.map(lambda leaf, i=i: leaf[i], many))[1]
        torch.testing.assert_close(losses[i], alone, rtol=1e-4, atol=1e-5)


def test_a_donated_step_on_a_device():
    w = torch.randn(512, 512, device="cuda")
    step = tp.jit(lambda w: w * 0.5 + 1, donate=0)
    wanted = w * 0.5 + 1
    torch.testing.assert_close(step(w), wanted)
    with pytest.raises(tp.errors.ImpureError, match="donated"):
        w.sum()
