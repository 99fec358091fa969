"""The functions that `vjp` and `linearize` return, inside of an operation: what they hold of a graph is no capture."""

import pytest
import torch

import torchpure as tp

D = torch.float64
W = torch.sin(torch.arange(25, dtype=D)).reshape(5, 5)
X, V = torch.linspace(-1, 1, 5, dtype=D), torch.linspace(0.5, 1, 5, dtype=D)


def _energy(x):
    return torch.tanh(W @ x).square().sum()


def _pushed(x):
    return tp.linearize(tp.grad(_energy), x)[1]


def _pulled(x):
    pull = tp.vjp(tp.grad(_energy), x)[1]
    return lambda v: pull(v)[0]


MAPS = {"linearize": _pushed, "vjp": _pulled, "matrix": lambda x: lambda v: tp.hessian(_energy)(x) @ v}
OPERATIONS = {
    "loop": lambda a, v: [v := a(v) for _ in range(3)][-1],
    "scan": lambda a, v: tp.scan(lambda v, _: (a(v), v.norm()), v, length=3)[0],
    "scan with remat": lambda a, v: tp.scan(lambda v, _: (a(v), None), v, length=3, remat=2)[0],
    "while": lambda a, v: tp.while_loop(lambda c: c[1] < 3, lambda c: (a(c[0]), c[1] + 1), (v, torch.tensor(0)))[0],
    "cond": lambda a, v: a(a(tp.cond(v.sum() > 0, a, torch.sin, v))),
    "remat": lambda a, v: a(tp.remat(lambda v: a(a(v)))(v)),
}


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "loop"])
@pytest.mark.parametrize("kind", ["linearize", "vjp"])
def test_an_operation_may_call_what_a_derivative_returned(kind, name):
    def total(kind, name):
        return lambda x, v: OPERATIONS[name](MAPS[kind](x), v).sum()

    mine, plain = total(kind, name), total("matrix", "loop")
    assert torch.allclose(mine(X, V), plain(X, V))
    assert torch.allclose(tp.make_graph(mine)(X, V)(X, V), plain(X, V))
    assert torch.allclose(tp.vmap(mine)(X[None], V[None]), plain(X, V)[None])
    if name != "while":
        want = tp.grad(plain, argnums=(0, 1))(X, V)
        for got in (tp.grad(mine, argnums=(0, 1))(X, V), tp.make_graph(tp.grad(mine, argnums=(0, 1)))(X, V)(X, V)):
            assert all(torch.allclose(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.compile
def test_a_compiled_loop_may_call_what_linearize_returned():
    def power(x, v):
        return OPERATIONS["scan"](_pushed(x), v)

    assert torch.allclose(tp.jit(power)(X, V), power(X, V))
