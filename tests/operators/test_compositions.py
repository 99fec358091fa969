"""Each operator under each transform, against nested derivatives under the same transform."""

import pytest
import torch
from architectures import close, trace
from daily import proof

import torchpure as tp

D = torch.float64
X = torch.tensor([0.3, -0.7], dtype=D)
XS = torch.stack([X, X.flip(0), X.exp()])
S = torch.tensor(0.6, dtype=D)
V = torch.tensor([0.5, -1.0], dtype=D)


@tp.custom_jvp
def bent(x):
    return x.tanh()


bent.defjvp(lambda primals, tangents: (bent(primals[0]), tangents[0] * (1 - primals[0] ** 2)))
FUNCTIONS = {
    "plain": lambda s, x: (torch.tanh(s * x) * x.flip(0)).sum() + torch.softmax(s * x, 0)[0],
    "custom rule": lambda s, x: (bent(s * x) * x).sum(),
    "loop": lambda s, x: tp.scan(lambda c, t: (torch.sin(c + t * s), None), x, S.new_ones(2))[0].prod(),
    "remat": lambda s, x: tp.remat(lambda y: torch.sin(s * y).prod())(x),
}


def field(f):
    return lambda x: torch.stack([f(x), f(x.flip(0)) * x[0]])


def _hessian(f):
    return tp.jacfwd(tp.jacrev(f))


def _curl(f):
    def run(x):
        jacobian = tp.jacfwd(field(f))(x)
        return jacobian[1, 0] - jacobian[0, 1]

    return run


OPERATORS = {  # an operator that gives a number, and the same by nested derivatives
    "laplacian": (tp.laplacian, trace),
    "bilaplacian": (tp.bilaplacian, lambda f: trace(trace(f))),
    "hessian_diagonal": (lambda f: lambda x: tp.hessian_diagonal(f)(x).prod(), lambda f: lambda x: _hessian(f)(x).diagonal().prod()),
    "jacobian_diagonal": (lambda f: lambda x: tp.jacobian_diagonal(field(f))(x).prod(), lambda f: lambda x: tp.jacfwd(field(f))(x).diagonal().prod()),
    "divergence": (lambda f: tp.divergence(field(f)), lambda f: lambda x: tp.jacfwd(field(f))(x).trace()),
    "curl": (lambda f: tp.curl(field(f)), _curl),
    "strain": (lambda f: lambda x: tp.strain(field(f))(x)[0, 1], lambda f: lambda x: (tp.jacfwd(field(f))(x) + tp.jacfwd(field(f))(x).mT)[0, 1] / 2),
    "advection": (lambda f: tp.advection(f, V), lambda f: lambda x: tp.jacfwd(f)(x) @ V),
    "partial": (lambda f: tp.partial(f, "xyy", coordinates="xy"), lambda f: lambda x: tp.jacfwd(_hessian(f))(x)[0, 1, 1]),
    "directional": (lambda f: tp.directional(f, V, order=2), lambda f: lambda x: V @ _hessian(f)(x) @ V),
    "jet": (lambda f: lambda x: tp.jet(f, (x,), ([V, V],))[1][1], lambda f: lambda x: V @ _hessian(f)(x) @ V + tp.jacfwd(f)(x) @ V),
}  # fmt: skip
COMPOSITIONS = {  # of a function g(s, x)
    "grad": lambda g: tp.grad(g)(S, X),
    "jvp": lambda g: tp.jvp(g, (S, X), (S, V))[1],
    "vmap": lambda g: tp.vmap(g, in_dims=(None, 0))(S, XS),
    "vmap grad": lambda g: tp.vmap(tp.grad(g), in_dims=(None, 0))(S, XS),
    "scan": lambda g: tp.scan(lambda c, x: (c + g(S, x), None), S, XS)[0],
    "cond": lambda g: tp.cond(S > 0, g, lambda s, x: s, S, X),
    "remat": lambda g: tp.grad(tp.remat(g))(S, X),
}


def _compose(operator, function):
    return lambda s, x: operator(lambda at: FUNCTIONS[function](s, at))(x)


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_composes(name, composition):
    ours, nested = OPERATORS[name]
    run = COMPOSITIONS[composition]
    close(run(_compose(ours, "plain")), run(_compose(nested, "plain")))


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name != "plain"])
@pytest.mark.parametrize("name", ["laplacian", "jet", proof("bilaplacian"), proof("partial")])
def test_an_operator_of_a_composition(name, function):
    ours, nested = OPERATORS[name]
    for composition in ("vmap", "grad"):
        run = COMPOSITIONS[composition]
        close(run(_compose(ours, function)), run(_compose(nested, function)))


@pytest.mark.compile
@pytest.mark.parametrize("name", [proof("bilaplacian"), "laplacian", "jet"])
def test_an_operator_compiles(name):
    ours, nested = OPERATORS[name]
    gradients = tp.vmap(tp.grad(_compose(ours, "plain")), in_dims=(None, 0))
    close(tp.jit(gradients)(S, XS), tp.vmap(tp.grad(_compose(nested, "plain")), in_dims=(None, 0))(S, XS))


@pytest.mark.parametrize("name", OPERATORS)
def test_captured_tensors_may_change(name):
    """Nothing of a call is kept: the next one sees other values, other shapes and other modules."""
    ours, nested = OPERATORS[name]
    captured = torch.tensor(0.6, dtype=D)
    u = lambda x: FUNCTIONS["plain"](captured, x)  # noqa: E731
    mine, theirs = ours(u), nested(u)
    before = mine(X)
    close(before, theirs(X))
    captured.mul_(2)
    assert not torch.allclose(mine(X), before)
    close(mine(X), theirs(X))
    captured = torch.tensor([1.0, -0.5], dtype=D)
    close(mine(X), theirs(X))


@pytest.mark.parametrize("name", ["laplacian", "bilaplacian", "jet", "divergence"])
def test_captured_tensors_stay_differentiable(name):
    ours, nested = OPERATORS[name]
    scale = S.clone().requires_grad_()
    got, wanted = (torch.autograd.grad(_compose(one, "plain")(scale, X), scale)[0] for one in (ours, nested))
    close(got, wanted)
