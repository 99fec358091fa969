"""Functions of a point, by architecture: what the operators follow in one pass, and what they do not."""

import torch
import torch.nn.functional as F
from torch import nn

import torchpure as tp

X = torch.tensor([0.3, -0.7, 0.45], dtype=torch.float64)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.Tanh())

    def forward(self, x):
        return x + self.inner(x)


def module(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(*(layer() if isinstance(layer, type) else layer for layer in layers)).double()
        for leaf in made.parameters():
            nn.init.normal_(leaf, std=0.4)
    net = tp.functional(made)
    return net.params, net


def mlp(*middle):
    return module(nn.Linear(3, 8), *middle, nn.Linear(8, 1))


def tokens(x):
    return torch.sin(torch.outer(x, torch.arange(1.0, 5.0, dtype=x.dtype)))  # (3, 4)


def of_numbers(fn):
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
        features = tokens(x)[None]
        return self.attention(features, features, features, need_weights=False)[0].sum()


def _determinant(x):
    orbitals = torch.exp(-(x[:, None] - torch.arange(3.0, dtype=x.dtype)).square())
    return torch.linalg.slogdet(orbitals)[1]


def _scan(x):
    return tp.scan(lambda c, t: (torch.tanh(c + t * x), None), x, torch.arange(3.0, dtype=x.dtype))[0].sum()


def _cond(x):
    return tp.cond(x.sum() > 0, lambda y: (y**3).sum(), lambda y: torch.sin(y).prod(), x)


FOLLOWED = {  # one pass
    "tanh": mlp(nn.Tanh),
    "sigmoid": mlp(nn.Sigmoid),
    "gelu": mlp(nn.GELU),
    "gelu tanh": mlp(nn.GELU("tanh")),
    "silu": mlp(nn.SiLU),
    "softplus": mlp(nn.Softplus),
    "mish": mlp(nn.Mish),
    "elu": mlp(nn.ELU),
    "relu after tanh": mlp(nn.Tanh(), nn.Linear(8, 8), nn.ReLU()),
    "layer norm": mlp(nn.Tanh(), nn.LayerNorm(8)),
    "rms norm": mlp(nn.Tanh(), nn.RMSNorm(8)),
    "group norm": module(nn.Linear(3, 8), nn.Tanh(), nn.Unflatten(0, (1, 8)), nn.GroupNorm(2, 8), nn.Linear(8, 1)),
    "softmax": mlp(nn.Softmax(-1)),
    "log softmax": mlp(nn.LogSoftmax(-1)),
    "dropout in evaluation": mlp(nn.Tanh(), nn.Dropout(0.5).eval()),
    "residual": mlp(Residual(), Residual()),
    "gated": mlp(Gated()),
    "convolution": module(nn.Unflatten(0, (1, 3)), nn.Conv1d(1, 4, 2), nn.Tanh(), nn.Flatten(0), nn.Linear(8, 1)),
    "max pool": module(nn.Unflatten(0, (1, 3)), nn.Conv1d(1, 4, 2), nn.Tanh(), nn.MaxPool1d(2), nn.Flatten(0), nn.Linear(4, 1)),
    "multi-head attention": module(Attention()),
    "attention": of_numbers(lambda x: F.scaled_dot_product_attention(*(tokens(x),) * 3)),
    "fourier features": of_numbers(lambda x: torch.cat([torch.sin(3 * x), torch.cos(2 * x)]).prod()),
    "logsumexp": of_numbers(lambda x: torch.logsumexp(x, 0)),
    "determinant": of_numbers(_determinant),
    "einsum": of_numbers(lambda x: torch.einsum("i,j,ij->i", x, x.sin(), torch.outer(x, x))),
    "gather": of_numbers(lambda x: (x[[0, 2]] * x.gather(0, torch.tensor([1, 1]))).sum()),
    "cumsum": of_numbers(lambda x: (torch.cumsum(x**2, 0) * x).sum()),
    "phase": of_numbers(lambda x: (torch.exp(1j * x.sum()) * torch.exp(1j * x)).imag.prod()),
    "distances": of_numbers(lambda x: torch.cdist(x[:, None], x[:, None] ** 2).sum()),
    "norm": of_numbers(lambda x: x.norm() + torch.linalg.vector_norm(x, 3)),
    "sort": of_numbers(lambda x: torch.sort(x**3).values[0] + x.square().topk(2).values.prod()),
    "quotient": of_numbers(lambda x: (x / (1 + x.square().sum()) + 2 / (3 + x) + 2.0**x + (4 + x) ** x).prod()),
    "remat": of_numbers(lambda x: tp.remat(lambda y: torch.sin(y).prod() * y)(x)),
    "scan": of_numbers(_scan),
    "branch": of_numbers(_cond),
    "where": of_numbers(lambda x: torch.where(x > 0, x.exp(), x**3).sum() + x.clamp(min=0.1).prod()),
    "matrix": of_numbers(lambda x: (torch.outer(x, x) @ torch.diag(x.cos()) @ x).reshape(3).sum()),
    "mask": of_numbers(lambda x: torch.outer(x, x).masked_fill(torch.ones(3, 3).tril() == 0, -9.0).softmax(-1).square().sum()),
    "assignments": of_numbers(lambda x: _assigned(x)),
    "relu in place": mlp(nn.SiLU(inplace=True), nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.Tanh()),
    "layers in place": module(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 1), Doubled()),
    "constant": of_numbers(lambda x: torch.ones(2, dtype=torch.float64)),
    "rounded": of_numbers(lambda x: x * torch.floor(10 * x)),
    "under no_grad": of_numbers(lambda x: x * _without_grad(x)),
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
    "vmap inside": of_numbers(lambda x: tp.vmap(torch.sin)(x).prod()),
    "identity in vmap": of_numbers(lambda x: tp.vmap(lambda y: y)(x).prod()),
    "gradient inside": of_numbers(lambda x: tp.grad(lambda y: y.sin().prod())(x).sum()),
    "jvp inside": of_numbers(lambda x: tp.jvp(lambda y: y.sin().prod(), (x,), (x,))[1]),
    "Laplacian inside": of_numbers(tp.laplacian(lambda y: y.sin().prod())),
    "write in place": of_numbers(_written),
    "write through a view": of_numbers(_written_through_a_view),
    "write under no_grad": of_numbers(_written_without_grad),
}


def trace(fn):
    def run(x):
        return tp.jacfwd(tp.jacrev(fn))(x).diagonal(dim1=-2, dim2=-1).sum(-1)

    return run


def close(got, wanted, tolerance=1e-10):
    for one, other in zip(tp.tree.leaves(got), tp.tree.leaves(wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
