"""Results of transforms that were wrong or refused once."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import torchpure as tp
from torchpure.errors import StructureError, TransformError

pytestmark = pytest.mark.faults


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_autocast_under_vmap():
    weight, bias, rows = draw(6, 6), draw(6, seed=1), draw(3, 6, seed=2)
    functions = [
        lambda x: functional.linear(x, weight, bias), lambda x: functional.linear(x, weight), lambda x: weight @ x,
        lambda x: torch.addmv(bias, weight, x), lambda x: torch.einsum("ij,j->i", weight, x),
    ]  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16):
        for f in functions:
            assert_close(tp.vmap(f)(rows), torch.stack([f(row) for row in rows]))


def test_autocast_in_norms():
    def loss(weight, scale, x):
        with torch.autocast("cpu", torch.float16):
            return functional.layer_norm(functional.linear(x, weight), (4,), scale, scale).float().pow(3).sum()

    weight, scale, rows = draw(4, 4), torch.ones(4), draw(3, 4, seed=1)
    slopes = tp.vmap(tp.grad(lambda w, s, x: loss(w, s, x[None])), in_dims=(None, None, 0))(weight, scale, rows)
    wanted = tp.grad(loss)(weight, scale, rows)
    assert slopes.shape == (3, 4, 4)
    for found in (slopes.sum(0), tp.jacrev(loss)(weight, scale, rows)):
        assert_close(found, wanted, rtol=0, atol=0.02 * float(wanted.abs().max()))  # rounded to float16


def test_aux_that_is_no_tree():
    with pytest.raises(TransformError, match="SimpleNamespace, which is no tree, and `hidden` of"):
        tp.grad(lambda x: ((x * x).sum(), SimpleNamespace(hidden=3 * x)), has_aux=True)(torch.ones(2))


def test_checkpointed_submodule():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return checkpoint(self.second, self.first(x).tanh(), use_reentrant=False).sin()

    net, x = tp.functional(Checkpointed()), draw(4, 2)
    module = net.to_module(net.params)
    module.requires_grad_(True)(x).sum().backward()
    wanted = {name: leaf.grad for name, leaf in module.named_parameters()}
    assert_close(tp.grad(lambda p: net(p, x).sum())(net.params), wanted)
    head, body = tp.partition(net.params, "first.*")
    found = tp.grad(lambda head: net(tp.merge(head, body), x).sum())(head)
    assert_close(found["first.weight"], wanted["first.weight"])


def test_debug_print_in_a_branch(capsys):
    def f(x):
        return tp.cond(x > 0.5, lambda x: (tp.debug.print("took {}", x), 2 * x)[1], lambda x: x, x)

    tp.vmap(f)(torch.tensor([0.25, 0.75, 0.5]))
    assert capsys.readouterr().out == "took 0.75\n"


def test_ensemble_of_different_modules():
    class Negative(nn.Linear):
        def forward(self, x):
            return -super().forward(x)

    with pytest.raises(
        StructureError, match="^ensemble: member 1 differs from member 0: the module is a .*Negative, wanted"
    ):
        tp.ensemble([nn.Linear(2, 2), Negative(2, 2)])


@pytest.mark.compile
def test_linearize_pushed_in_a_scan():
    weight, x, v = draw(4, 4), draw(4, seed=1), draw(4, seed=2)
    slope = tp.grad(lambda x: torch.tanh(weight @ x).square().sum())

    def power(x, v):
        _, push = tp.linearize(slope, x)
        return tp.scan(lambda v, _: (push(v), v), v, length=3)

    hessian = tp.jacrev(slope)(x)
    wanted = [v, hessian @ v, hessian @ hessian @ v]
    for run in (power, tp.jit(power)):
        last, seen = run(x, v)
        assert_close((last, seen), (hessian @ wanted[-1], torch.stack(wanted)), rtol=1e-4, atol=1e-4)


def test_many_reachable_objects():
    class Force(nn.Module):
        def forward(self, x):
            return torch.autograd.grad((x**3).sum(), x)[0].sum()

    force, records = Force(), [{"number": n} for n in range(2500)]
    assert_close(tp.grad(lambda x: force(x) if records else x.sum())(torch.ones(2)), torch.full((2,), 6.0))


def test_registered_containers():
    @dataclasses.dataclass
    class Pair:
        a: torch.Tensor
        b: torch.Tensor

    torch.utils._pytree.register_dataclass(Pair)
    found = tp.grad(lambda p: (2 * p.a + p.a * p.b).sum())(Pair(torch.ones(2), torch.full((2,), 3.0)))
    assert type(found) is Pair
    assert_close((found.a, found.b), (torch.full((2,), 5.0), torch.ones(2)))


def test_remat_with_keyed_dropout():
    net = tp.functional(nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1)))
    x, key = draw(2, 3), tp.random.key(1)
    loss = lambda params: net.apply(params, {}, x, key=key)[0].sum()  # noqa: E731
    assert_close(tp.grad(tp.remat(loss))(net.params), tp.grad(loss)(net.params))
