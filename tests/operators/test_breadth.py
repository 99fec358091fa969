"""Closed forms and composites of operators, and derivatives of order five, against nested derivatives."""

import math

import pytest
import torch
import torch.nn.functional as F
from architectures import FOLLOWED, NESTED, X, close, mlp, module, of_numbers, tokens, trace
from torch import nn

import torchpure as tp
from torchpure.operators import _collapsed, _fourth_order, _laplacian, _second_order, _taylor
from torchpure.operators._follow import Unfollowed

D = torch.float64


class Tokens(nn.Module):
    def forward(self, x):
        return tokens(x)[None]  # (1, 3, 4)


class Encoder(nn.Module):
    def __init__(self, mask=None):
        super().__init__()
        self.attention, self.mask = nn.MultiheadAttention(4, 2, batch_first=True), mask

    def forward(self, x):
        out, weights = self.attention(x, x.sin(), x, attn_mask=self.mask)
        return out.sum() + weights.square().sum()


def _pairs(x):
    """Distances of particles, also of each to itself, where a norm has a kink."""
    places = torch.outer(x, torch.tensor([1.0, 0.5, -1.0], dtype=D)).cos()
    return torch.linalg.norm(places[:, None] - places, dim=-1)


def _wave_function(x):
    orbitals = torch.exp(-_pairs(x)) * (1 + x[:, None] * x)
    sign, log = torch.linalg.slogdet(orbitals + torch.eye(3, dtype=D))
    return sign * torch.exp(log)


def _padded(x):
    heads = tokens(x).reshape(1, 1, 3, 4)
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    return F.scaled_dot_product_attention(heads, heads.cos(), heads, attn_mask=mask)


FURTHER = {
    "transformer": module(Tokens(), nn.TransformerEncoderLayer(4, 2, 8, 0.0, "gelu", batch_first=True), nn.Flatten(0), nn.Linear(12, 1)),
    "cross attention": module(Tokens(), Encoder()),
    "masked multi-head attention": module(Tokens(), Encoder(torch.ones(3, 3).triu(1).bool())),
    "causal attention": of_numbers(lambda x: F.scaled_dot_product_attention(*(tokens(x),) * 3, is_causal=True)),
    "padded attention": of_numbers(_padded),
    "batch norm in evaluation": module(nn.Linear(3, 8), nn.Tanh(), nn.Unflatten(0, (1, 8)), nn.BatchNorm1d(8).eval(), nn.Tanh(), nn.Linear(8, 1)),
    "convolution in two dimensions": module(nn.Linear(3, 16), nn.Tanh(), nn.Unflatten(0, (1, 1, 4, 4)), nn.Conv2d(1, 2, 2), nn.MaxPool2d(2), nn.Flatten(0), nn.Linear(2, 1)),
    "group norm after curvature": module(nn.Linear(3, 8), nn.SiLU(), nn.Unflatten(0, (1, 4, 2)), nn.GroupNorm(2, 4), nn.Flatten(0), nn.Linear(8, 1)),
    "GLU": mlp(nn.Tanh(), nn.Linear(8, 16), nn.GLU()),
    "PReLU": mlp(nn.Tanh(), nn.Linear(8, 8), nn.PReLU()),
    "normalize": of_numbers(lambda x: F.normalize(x.exp(), dim=0)),
    "variance": of_numbers(lambda x: torch.var(x.sin()) + x.square().var(0, correction=0)),
    "particles": of_numbers(_pairs),
    "wave function": of_numbers(_wave_function),
    "logdet": of_numbers(lambda x: torch.logdet(torch.outer(x, x) + torch.diag(x.exp()))),
    "inverse": of_numbers(lambda x: torch.linalg.inv(torch.outer(x, x.sin()) + 2 * torch.eye(3, dtype=D))),
    "quotients": of_numbers(lambda x: x.sin() / (2 + x.cos()) + 1 / x.exp() + torch.addcdiv(x, x, x.exp(), value=0.3)),
    "interpolated": of_numbers(lambda x: torch.lerp(x, x.sin(), x.cos()) + torch.addcmul(x, x, x.exp(), value=2)),
    "loss": of_numbers(lambda x: F.mse_loss(x.sin(), x) + F.mse_loss(x, x.cos(), reduction="sum")),
    "phases": of_numbers(lambda x: (torch.tanh(torch.exp(1j * x)) * torch.polar(x.exp(), x)).sum()),
    "modulus": of_numbers(lambda x: (torch.exp(1j * x) + x).abs()),
    "Fourier transform": of_numbers(lambda x: torch.fft.fft(x**3).square().real),
    "complex": of_numbers(lambda x: torch.log(2 + 1j * x) * torch.sin(1j * x) + torch.cos(1j * x) * torch.reciprocal(1 + 1j * x)),
    "softmax of a matrix": of_numbers(lambda x: torch.softmax(torch.outer(x, x.sin()), 0) * x),
    "log softmax of a matrix": of_numbers(lambda x: torch.outer(x, x.sin()).log_softmax(0) * x),
    "logsumexp over two": of_numbers(lambda x: torch.logsumexp(torch.outer(x, x.exp()), (0, 1)) + torch.outer(x, x).logsumexp(1, keepdim=True)),
    "small products": of_numbers(lambda x: torch.outer(x, x.exp()).prod(0) + torch.outer(x, x).prod(1, keepdim=True)),
}  # fmt: skip


def _function(table, name):
    params, net = table[name]
    return lambda x: net(params, x)


def _refuse(*_):
    raise Unfollowed


def _nested(u):
    """Return value, Jacobian and Laplacian, of a complex value by its real and imaginary parts."""
    value = u(X)
    if not value.is_complex():
        return value, tp.jacfwd(u)(X), trace(u)(X)
    parts = lambda x: torch.view_as_real(u(x))  # noqa: E731
    joined = lambda both: torch.view_as_complex(both.contiguous())  # noqa: E731
    return value, joined(tp.jacfwd(parts)(X).movedim(-2, -1)), joined(trace(parts)(X))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of torch's own rule for GLU
@pytest.mark.parametrize("name", FURTHER)
def test_a_closed_form_is_the_nested_form(name, monkeypatch):
    u = _function(FURTHER, name)
    wanted = _nested(u)
    monkeypatch.setattr(_second_order, "_nested", None)
    monkeypatch.setattr(_second_order, "nested_second", None)  # no operation takes the generic rule
    close(tp.laplacian(u, with_value=True)(X), wanted)


def test_closed_forms_of_other_forms():
    """Pairs of different directions, and weights: left and right tangents differ."""
    for name in ("transformer", "group norm after curvature", "logdet", "inverse", "particles", "logsumexp over two"):
        u = _function(FURTHER, name)
        hessian = tp.jacfwd(tp.jacrev(lambda x: u(x).sum()))(X)  # noqa: B023
        weights = torch.outer(X, X.exp())
        scalar = lambda x: u(x).sum()  # noqa: B023, E731
        close(tp.laplacian(scalar, weights=weights)(X), (hessian * weights).sum())
        close(tp.partial(scalar, "xz", coordinates="xyz")(X), hessian[0, 2])
        close(tp.hessian_diagonal(scalar)(X), hessian.diagonal())


TORCH_CANNOT = {  # give the reference: writes into what two forward derivatives follow, and a rule for GLU
    "assignments", "GLU",
}  # fmt: skip
ONE_PASS = [name for name in FOLLOWED if name not in {
    "determinant", "einsum", "phase", "distances", "norm", "quotient", "remat", "assignments", "rounded", "relu in place",
}]  # fmt: skip


@pytest.mark.parametrize("name", ["tanh", "gelu", "layer norm", "softmax", "attention", "gated", "matrix", "scan"])
def test_law_the_bilaplacian_of_one_pass_is_the_laplacian_of_the_laplacian(name, monkeypatch):
    u = _function(FOLLOWED, name)
    monkeypatch.setattr(_laplacian, "second_order", None)
    found = tp.bilaplacian(u, with_value=True)(X)
    monkeypatch.undo()
    close(tuple(found), (u(X), tp.laplacian(u)(X), tp.laplacian(tp.laplacian(u))(X)), 1e-9)


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", [name for name in {**FOLLOWED, **FURTHER} if name not in TORCH_CANNOT])
def test_every_bilaplacian_is_that_of_nested_derivatives(name, monkeypatch):
    u = _parts(_function({**FOLLOWED, **FURTHER}, name))
    if name in ONE_PASS:
        monkeypatch.setattr(_laplacian, "second_order", None)
    close(tp.bilaplacian(u)(X), trace(trace(u))(X), 1e-9)


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", [name for name in {**FOLLOWED, **FURTHER} if name not in TORCH_CANNOT | {"constant"}])
def test_every_gradient_of_a_bilaplacian_in_the_parameters(name):
    params, net = {**FOLLOWED, **FURTHER}[name]

    def loss(operator):
        return lambda params: operator(lambda x: _parts(net)(params, x).sum())(X).square()

    twice = (lambda u: tp.laplacian(tp.laplacian(u))) if name == "phases" else lambda u: trace(trace(u))
    got, wanted = tp.grad(loss(tp.bilaplacian))(params), tp.grad(loss(twice))(params)
    scale = max(1e-3, *(float(leaf.abs().max()) for leaf in tp.tree.leaves(wanted)))  # some are zero
    # jacfwd of jacrev, twice, has lost two digits at distances near zero
    tolerance = 1e-8 if name == "particles" else 1e-10
    close(*(tp.tree.map(lambda leaf: leaf / scale, one) for one in (got, wanted)), tolerance)


def _parts(fn):
    """Return the real and imaginary parts of a complex value: jacrev wants real ones."""

    def run(*args):
        value = fn(*args)
        return torch.view_as_real(value) if value.is_complex() else value

    return run


@pytest.mark.parametrize("name", ["tanh", "softmax", "layer norm", "attention", "phase", "determinant", "max pool"])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_law_the_sum_of_series_is_the_sum_over_directions(name, order, monkeypatch):
    u = _function(FOLLOWED, name)
    along = tp.random.normal(tp.random.key(0), (4, 3), dtype=D)
    wanted = tp.vmap(lambda v: tp.directional(u, v, order=order)(X))(along).sum(0) / math.factorial(order)
    monkeypatch.setattr(_collapsed, "taylor", None)
    found, _ = _collapsed.sum_of_series(lambda x: (u(x), None), [X], [along], order)
    close(found, wanted, 1e-9)


@pytest.mark.parametrize(
    "name", ["layer norm", "softmax", "log softmax", "rms norm", "group norm", "attention", "quotients"]
)
def test_series_of_composites_take_one_pass(name, monkeypatch):
    u = _function({**FOLLOWED, **FURTHER}, name)
    series = [X.sin(), X.exp(), X.cos(), X]
    wanted = _taylor.nested_series(
        lambda x: u(x), [X], [[one / math.factorial(k) for k, one in enumerate(series, 1)]], 4
    )
    monkeypatch.setattr(_taylor, "nested_series", None)
    _, terms = tp.jet(u, (X,), (series,))
    close(terms, [one * math.factorial(k) for k, one in enumerate(wanted[0], 1)], 1e-9)


def test_the_passes_carry_one_last_coefficient(monkeypatch):
    """The size of what a layer multiplies: 1 + D + D(D + 1)/2 + D + 1 rows for a bilaplacian."""
    rows = []
    monkeypatch.setattr(
        _fourth_order,
        "vmap",
        lambda rule, **kw: lambda *parts: rows.append(len(parts[0])) or tp.vmap(rule, **kw)(*parts),
    )
    layer = torch.outer(X, X)
    tp.bilaplacian(lambda x: F.linear(F.linear(x, layer).tanh(), layer).sum())(X)
    assert set(rows) == {3, 6}


def test_a_function_that_a_pass_of_fourth_order_cannot_follow(monkeypatch):
    monkeypatch.setattr(_laplacian, "fourth_order", _refuse)
    close(
        tp.bilaplacian(_function(FOLLOWED, "tanh"))(X), tp.laplacian(tp.laplacian(_function(FOLLOWED, "tanh")))(X), 1e-9
    )


def test_the_tables_have_enough_architectures():
    assert len(FOLLOWED) + len(FURTHER) + len(NESTED) >= 25 and len(ONE_PASS) >= 25
