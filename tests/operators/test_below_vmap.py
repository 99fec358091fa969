"""Layers and activations in eager code: their rules run below the levels, and nothing that they keep can be stale."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchpure as tp
from torchpure.operators import _below_vmap
from torchpure.operators.rules import Pairs, Step, push
from torchpure.transforms.engine import current_level

X = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2)
W, V = (torch.linspace(0.1, 1, n, dtype=torch.float64).sin().reshape(-1, k) for n, k in ((6, 2), (9, 3)))
B = torch.linspace(-0.2, 0.3, 3, dtype=torch.float64)
ACTIVATIONS = {"tanh": torch.tanh, "sin": torch.sin, "silu": F.silu, "exp": torch.exp, "sigmoid": torch.sigmoid}


def network(activation=torch.tanh):
    return lambda params, x: F.linear(activation(F.linear(activation(F.linear(x, params[0], B)), params[1])), V[:1])[0]


def nested(fn):
    return lambda x: tp.hessian(fn)(x).diagonal().sum()


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def check(fn, at=X):
    close(tp.vmap(tp.laplacian(fn))(at), tp.vmap(nested(fn))(at))


@pytest.fixture
def pushes(monkeypatch):
    calls = []
    monkeypatch.setattr(_below_vmap, "push", lambda *given: calls.append(given) or push(*given))
    return calls


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_all_steps_run_at_once(activation, pushes):
    check(lambda x: network(activation)((W, V), x))
    assert [len(steps) for _, steps, _ in pushes] == [4]  # the last layer has no first derivatives


FORMS = {
    "trace": (lambda fn: tp.laplacian(fn), nested),
    "diagonal": (lambda fn: tp.hessian_diagonal(fn), lambda fn: lambda x: tp.hessian(fn)(x).diagonal()),
    "pair": (lambda fn: tp.partial(fn, (0, 1), coordinates="xy"), lambda fn: lambda x: tp.hessian(fn)(x)[0, 1]),
    "pairs": (
        lambda fn: lambda x: torch.stack(tp.partials(fn, ((1, 1), (0, 1)), coordinates="xy")(x)),
        lambda fn: lambda x: tp.hessian(fn)(x)[1],
    ),
}
GRADIENTS = {
    "value": lambda loss: loss((W, V)),
    "gradient": lambda loss: tp.grad(loss)((W, V)),
    "gradient of gradient": lambda loss: tp.grad(lambda p: sum((g**2).sum() for g in tp.grad(loss)(p)))((W, V)),
    "autograd twice": lambda loss: twice(loss),
    "jvp of gradient": lambda loss: tp.jvp(tp.grad(loss), ((W, V),), ((W, V),))[1],
    "jacobian": lambda loss: tp.jacrev(lambda p: torch.stack([loss(p), 2 * loss(p)]))((W, V)),
    "members": lambda loss: tp.vmap(tp.grad(loss))((torch.stack([W, 2 * W]), torch.stack([V, -V]))),
}


def twice(loss):
    params = [leaf.clone().requires_grad_() for leaf in (W, V)]
    first = torch.autograd.grad(loss(tuple(params)), params, create_graph=True)
    return torch.autograd.grad(sum((g**2).sum() for g in first), params)


@pytest.mark.parametrize("activation", ("tanh", "silu"))
@pytest.mark.parametrize("taken", GRADIENTS.values(), ids=GRADIENTS)
@pytest.mark.parametrize("forms", FORMS.values(), ids=FORMS)
def test_parameters_have_their_gradients(forms, taken, activation):
    fn = network(ACTIVATIONS[activation])

    def loss(form):
        return lambda params: (tp.vmap(lambda x: form(lambda at: fn(params, at))(x))(X) ** 2).sum()

    ours, theirs = (taken(loss(form)) for form in forms)
    tp.tree.map(close, ours, theirs)


def test_no_call_is_stale():
    weight, scale, module = W.clone(), [1.0], nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Dropout(0.0)).double()
    fn = lambda x: (module(x) * torch.tanh(F.linear(x, weight))).sum() * (scale[0] if scale[0] > 0 else x[0] ** 2)  # noqa: E731
    check(fn)
    weight.mul_(2)  # in place
    check(fn)
    weight = V[:, :2].contiguous()  # another tensor
    check(fn)
    scale[0] = -1.0  # another branch
    check(fn)
    module[1] = nn.SiLU()  # another activation
    check(fn)
    module.eval()
    check(fn)
    check(fn, X.repeat(3, 1))  # other sizes


def write_value(x, out_of_place):
    hidden = torch.tanh(F.linear(x, W))
    out = F.linear(hidden, V)
    hidden = hidden * 3 if out_of_place else hidden.mul_(3)
    return (torch.sin(out) * hidden).sum()


def write_weight(x, out_of_place):
    weight = W * 1
    out = torch.tanh(F.linear(x, weight))
    weight = weight * 3 if out_of_place else weight.mul_(3)
    return (out * F.linear(x, weight)).sum()


def write_view(x, out_of_place):
    hidden = torch.tanh(F.linear(x, W))
    if out_of_place:
        hidden = torch.cat([2 * x[:1], hidden[1:]])
    else:
        hidden[0] = 2 * x[0]
    return torch.sin(F.linear(hidden, V)).sum()


@pytest.mark.parametrize("fn", (write_value, write_weight, write_view), ids=lambda fn: fn.__name__)
def test_a_write_between_two_operations_is_seen(fn):
    found = tp.vmap(tp.laplacian(lambda x: fn(x, False)))(X)
    close(found, tp.vmap(nested(lambda x: fn(x, True)))(X))


LEVELS = {
    "members of points": lambda of: tp.vmap(lambda w: tp.vmap(of(w))(X))(torch.stack([W, 2 * W, -W])),
    "tangent": lambda of: tp.jvp(lambda w: tp.vmap(of(w))(X), (W,), (2 * W,))[1],
    "gradient of each": lambda of: tp.vmap(tp.grad(lambda w, x: of(w)(x)), in_dims=(None, 0))(W, X),
    "at the point": lambda of: tp.hessian(lambda x: of(W)(x))(X[0]),
    "one for all": lambda of: tp.vmap(lambda x: of(W)(X[0]) * x)(X),
}


@pytest.mark.parametrize("taken", LEVELS.values(), ids=LEVELS)
def test_constants_come_from_any_level(taken):
    fn = lambda weight: lambda x: torch.tanh(F.linear(torch.sin(F.linear(x, weight)), V)).sum()  # noqa: E731
    close(taken(lambda w: tp.laplacian(fn(w))), taken(lambda w: nested(fn(w))))


@pytest.mark.compile
def test_a_program_has_the_same_values():
    fn = lambda x: network()((W, V), x)  # noqa: E731
    close(tp.jit(tp.vmap(tp.laplacian(fn)))(X), tp.vmap(nested(fn))(X))


def test_threads_do_not_meet():
    found, expected = {}, tp.vmap(nested(lambda x: network()((W, V), x)))(X)

    def run(name):
        for _ in range(5):
            found[name] = tp.vmap(tp.laplacian(lambda x: network()((W, V), x)))(X)

    threads = [threading.Thread(target=run, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for one in found.values():
        close(one, expected)


def test_an_error_leaves_the_levels_as_they_were(monkeypatch):
    monkeypatch.setattr(_below_vmap, "push", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tp.vmap(tp.laplacian(lambda x: torch.tanh(F.linear(x, W)).sum()))(X)
    assert current_level() == 0
    with pytest.raises(Exception, match="shape"):
        tp.vmap(tp.laplacian(lambda x: torch.tanh(F.linear(x, V)).sum()))(X)


@pytest.mark.parametrize("kind", ("linear", "tanh", "function"))
@pytest.mark.parametrize("shared", (False, True))
def test_the_backward_pass_is_that_of_autograd(kind, shared):
    given = {"linear": (V,), "tanh": (torch.tanh(X[:, :1] + B),), "function": (X[:, :1] * B, X[:, 1:] * B)}
    start = torch.sin(2 * V[:2].unsqueeze(1)).expand(2, 1 if shared else 5, 3)
    for pairs in (Pairs(2, True, None), Pairs(2, False, None), Pairs(2, False, ((0, 1), (1, 1)))):
        tensors = [leaf.clone().requires_grad_() for leaf in (start, *given["tanh"], *given[kind], V[:1])]

        def run(start, value, *rest, pairs=pairs):
            steps = [Step("tanh", (value,)), Step(kind, rest[:-1]), Step("linear", rest[-1:])]
            return push(pairs, steps, start)

        assert torch.autograd.gradcheck(run, tensors, fast_mode=True)
        assert torch.autograd.gradgradcheck(run, tensors, fast_mode=True)
