"""The Laplacian of many architectures, against the trace of the Hessian, and third derivatives of them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchpure as tp
from torchpure.operators import _second_order

X = torch.tensor([0.3, -0.7, 0.45], dtype=torch.float64)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.Tanh())

    def forward(self, x):
        return x + self.inner(x)


def _module(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(*(layer() if isinstance(layer, type) else layer for layer in layers)).double()
        for leaf in made.parameters():
            nn.init.normal_(leaf, std=0.4)
    net = tp.functional(made)
    return net.params, net


def _mlp(*middle):
    return _module(nn.Linear(3, 8), *middle, nn.Linear(8, 1))


def _tokens(x):
    return torch.sin(torch.outer(x, torch.arange(1.0, 5.0, dtype=x.dtype)))  # (3, 4)


def _of_numbers(fn):
    return {"scale": torch.tensor([0.8, -1.1, 0.6], dtype=torch.float64)}, lambda params, x: fn(x * params["scale"])


class Gated(nn.Module):
    def forward(self, x):
        left, right = x.chunk(2)
        return torch.cat([torch.sigmoid(left) * right, right])


class Doubled(nn.Module):
    def forward(self, x):
        return (x * 2).tanh_() * x


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        tokens = _tokens(x)[None]
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].sum()


def _determinant(x):
    orbitals = torch.exp(-(x[:, None] - torch.arange(3.0, dtype=x.dtype)).square())
    return torch.linalg.slogdet(orbitals)[1]


def _scan(x):
    return tp.scan(lambda c, t: (torch.tanh(c + t * x), None), x, torch.arange(3.0, dtype=x.dtype))[0].sum()


def _cond(x):
    return tp.cond(x.sum() > 0, lambda y: (y**3).sum(), lambda y: torch.sin(y).prod(), x)


FOLLOWED = {  # one pass
    "tanh": _mlp(nn.Tanh),
    "sigmoid": _mlp(nn.Sigmoid),
    "gelu": _mlp(nn.GELU),
    "gelu tanh": _mlp(nn.GELU("tanh")),
    "silu": _mlp(nn.SiLU),
    "softplus": _mlp(nn.Softplus),
    "mish": _mlp(nn.Mish),
    "elu": _mlp(nn.ELU),
    "relu after tanh": _mlp(nn.Tanh(), nn.Linear(8, 8), nn.ReLU()),
    "layer norm": _mlp(nn.Tanh(), nn.LayerNorm(8)),
    "rms norm": _mlp(nn.Tanh(), nn.RMSNorm(8)),
    "group norm": _module(nn.Linear(3, 8), nn.Tanh(), nn.Unflatten(0, (1, 8)), nn.GroupNorm(2, 8), nn.Linear(8, 1)),
    "softmax": _mlp(nn.Softmax(-1)),
    "log softmax": _mlp(nn.LogSoftmax(-1)),
    "dropout in evaluation": _mlp(nn.Tanh(), nn.Dropout(0.5).eval()),
    "residual": _mlp(Residual(), Residual()),
    "gated": _mlp(Gated()),
    "convolution": _module(nn.Unflatten(0, (1, 3)), nn.Conv1d(1, 4, 2), nn.Tanh(), nn.Flatten(0), nn.Linear(8, 1)),
    "max pool": _module(nn.Unflatten(0, (1, 3)), nn.Conv1d(1, 4, 2), nn.Tanh(), nn.MaxPool1d(2), nn.Flatten(0), nn.Linear(4, 1)),
    "multi-head attention": _module(Attention()),
    "attention": _of_numbers(lambda x: F.scaled_dot_product_attention(*(_tokens(x),) * 3)),
    "fourier features": _of_numbers(lambda x: torch.cat([torch.sin(3 * x), torch.cos(2 * x)]).prod()),
    "logsumexp": _of_numbers(lambda x: torch.logsumexp(x, 0)),
    "determinant": _of_numbers(_determinant),
    "einsum": _of_numbers(lambda x: torch.einsum("i,j,ij->i", x, x.sin(), torch.outer(x, x))),
    "gather": _of_numbers(lambda x: (x[[0, 2]] * x.gather(0, torch.tensor([1, 1]))).sum()),
    "cumsum": _of_numbers(lambda x: (torch.cumsum(x**2, 0) * x).sum()),
    "phase": _of_numbers(lambda x: (torch.exp(1j * x.sum()) * torch.exp(1j * x)).imag.prod()),
    "distances": _of_numbers(lambda x: torch.cdist(x[:, None], x[:, None] ** 2).sum()),
    "norm": _of_numbers(lambda x: x.norm() + torch.linalg.vector_norm(x, 3)),
    "sort": _of_numbers(lambda x: torch.sort(x**3).values[0] + x.square().topk(2).values.prod()),
    "quotient": _of_numbers(lambda x: (x / (1 + x.square().sum()) + 2 / (3 + x) + 2.0**x + (4 + x) ** x).prod()),
    "remat": _of_numbers(lambda x: tp.remat(lambda y: torch.sin(y).prod() * y)(x)),
    "scan": _of_numbers(_scan),
    "branch": _of_numbers(_cond),
    "where": _of_numbers(lambda x: torch.where(x > 0, x.exp(), x**3).sum() + x.clamp(min=0.1).prod()),
    "matrix": _of_numbers(lambda x: (torch.outer(x, x) @ torch.diag(x.cos()) @ x).reshape(3).sum()),
    "mask": _of_numbers(lambda x: torch.outer(x, x).masked_fill(torch.ones(3, 3).tril() == 0, -9.0).softmax(-1).square().sum()),
    "assignments": _of_numbers(lambda x: _assigned(x)),
    "relu in place": _mlp(nn.SiLU(inplace=True), nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.Tanh()),
    "layers in place": _module(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 1), Doubled()),
    "constant": _of_numbers(lambda x: torch.ones(2, dtype=torch.float64)),
    "rounded": _of_numbers(lambda x: x * torch.floor(10 * x)),
    "under no_grad": _of_numbers(lambda x: x * _without_grad(x)),
}  # fmt: skip


def _without_grad(x):
    with torch.no_grad():
        return x.sin()


def _assigned(x):
    h = x * 2
    h += x.sin()
    h *= h.detach() + 1
    h -= 3
    h /= 1 + x.square()
    out = torch.zeros_like(x)
    out += h.exp()
    return out.prod()


def _written_through_a_view(x):
    out = torch.zeros_like(x)
    part = out[:2]
    part += x[:2].sin()
    return ((out + x) ** 3).sum()


def _written_without_grad(x):
    h = x * 2
    with torch.no_grad():
        h += 1
    return (h**3).sum()


def _written(x):
    out = torch.zeros(3, dtype=x.dtype)
    out[0] = x[1] * x[2]
    return (out * x).sum()


NESTED = {  # the mode sees less than the tangents: nested derivatives
    "vmap inside": _of_numbers(lambda x: tp.vmap(torch.sin)(x).prod()),
    "identity in vmap": _of_numbers(lambda x: tp.vmap(lambda y: y)(x).prod()),
    "gradient inside": _of_numbers(lambda x: tp.grad(lambda y: y.sin().prod())(x).sum()),
    "jvp inside": _of_numbers(lambda x: tp.jvp(lambda y: y.sin().prod(), (x,), (x,))[1]),
    "Laplacian inside": _of_numbers(tp.laplacian(lambda y: y.sin().prod())),
    "write in place": _of_numbers(_written),
    "write through a view": _of_numbers(_written_through_a_view),
    "write under no_grad": _of_numbers(_written_without_grad),
}


def _trace(fn):
    def run(x):
        return tp.jacfwd(tp.jacrev(fn))(x).diagonal(dim1=-2, dim2=-1).sum(-1)

    return run


def _close(got, wanted, tolerance=1e-10):
    for one, other in zip(tp.tree.leaves(got), tp.tree.leaves(wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_laplacian_is_the_trace_of_the_hessian_in_one_pass(name, monkeypatch):
    params, net = FOLLOWED[name]

    def u(x):
        return net(params, x)

    wanted = (u(X), tp.jacfwd(u)(X), _trace(u)(X))
    monkeypatch.setattr(_second_order, "_nested", None)
    found = tp.laplacian(u, with_value=True)(X)
    _close(found, wanted)


@pytest.mark.parametrize("name", NESTED)
def test_a_function_that_cannot_be_followed_is_differentiated_by_nesting(name, monkeypatch):
    params, net = NESTED[name]

    def u(x):
        return net(params, x)

    calls, nested = [], _second_order._nested
    monkeypatch.setattr(_second_order, "_nested", lambda *args: calls.append(1) or nested(*args))
    _close(tp.laplacian(u)(X), _trace(u)(X))
    assert calls


DEEP = ["tanh", "gelu", "silu", "layer norm", "softmax", "attention", "determinant", "remat", "phase", "convolution"]


@pytest.mark.parametrize("name", DEEP)
def test_gradients_of_a_laplacian_in_the_parameters(name):
    params, net = FOLLOWED[name]

    def loss(operator):
        def run(params):
            u = lambda x: net(params, x).sum()  # noqa: E731
            return (tp.vmap(operator(u))(torch.stack([X, X.flip(0)])) ** 2).mean()

        return run

    _close(tp.grad(loss(tp.laplacian))(params), tp.grad(loss(_trace))(params))


@pytest.mark.parametrize("name", ["tanh", "silu", "logsumexp", "quotient"])
def test_gradients_of_a_bilaplacian_in_the_parameters(name):
    params, net = FOLLOWED[name]

    def loss(operator):
        return lambda params: operator(lambda x: net(params, x).sum())(X).square()

    _close(tp.grad(loss(tp.bilaplacian))(params), tp.grad(loss(lambda u: _trace(_trace(u))))(params), 1e-9)


def test_custom_rules_are_kept():
    @tp.custom_jvp
    def half(x):
        return x.sin()

    half.defjvp(lambda primals, tangents: (half(primals[0]), tangents[0] * primals[0] ** 2))
    u = lambda x: (half(x) * x).sum()  # noqa: E731
    _close(tp.laplacian(u)(X), _trace(u)(X))
    assert not torch.allclose(tp.laplacian(u)(X), _trace(lambda x: (x.sin() * x).sum())(X))


def test_a_module_in_training_draws_once_from_its_key():
    net = tp.functional(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1)).double())
    key = tp.random.key(0)

    def u(x):
        return net.apply(net.params, net.state, x, key=key, train=True)[0].sum()

    _close(tp.laplacian(u)(X), _trace(u)(X))
    assert float(tp.laplacian(u)(X)) != 0


def test_a_drawn_mask_is_drawn_once(monkeypatch):
    """A rule that ran the operation again would multiply the derivatives by another mask."""
    calls = []
    monkeypatch.setattr(_second_order, "_nested", lambda *args: calls.append(1) or _second_order.Pass(*[X] * 4))
    tp.laplacian(lambda x: F.dropout(x * 2, 0.5))(X)
    tp.laplacian(lambda x: F.scaled_dot_product_attention(*(_tokens(x),) * 3, dropout_p=0.5))(X)
    assert calls == [1, 1]
