"""Functions of tensors that the native backend compiles, for several test files."""

import torch
from torch import Tensor
from torch.nn import functional

from torchpure._cpp import load_library
from torchpure.jit.native import compile_cpp
from torchpure.transforms.calls._primitives import scan_p
from torchpure.transforms.tracing._make_fx import trace


def rows(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def native(fn, *tensors: Tensor):
    return compile_cpp(trace(lambda *given: as_tuple(fn(*given)), tensors), tensors, load_library)


def as_tuple(out):
    return out if isinstance(out, tuple) else (out,)


def check(fn, *tensors: Tensor) -> None:
    kept = [leaf.clone() for leaf in tensors]
    found = native(fn, *tensors)(*tensors)
    for one, two in zip(found, as_tuple(fn(*tensors)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-13, equal_nan=True, check_stride=False)
    assert all(torch.equal(a, b) for a, b in zip(tensors, kept, strict=True))


def _extremes(x: Tensor) -> tuple[Tensor, ...]:
    """Reduce rows of many numbers, with and without NaN."""
    some = torch.where(x > 2, float("nan"), x)
    whole = (x.amax(1), x.max(), x.amin((0, 1)), x.max() - x.min(), (x * 2).aminmax()[1])
    return (*whole, some.amax(1), some.max(), some.amin(0))


A, B, V, W = rows(4, 6), rows(6, 5, seed=1), rows(6, seed=2), rows(3, 4, 6, seed=3)
PADDED = torch.tensor([[1, 2, -1, 0]] * 3)
N = torch.arange(-6, 6).reshape(3, 4)
E = torch.tensor([float("inf"), -1.0, 0.0, -0.0, 0.3, 6.0, 1e30, -float("inf")], dtype=A.dtype)
_aten = torch.ops.aten
ACTIVATIONS = (
    functional.leaky_relu, functional.elu, functional.celu, functional.selu, functional.relu6, functional.hardtanh, functional.hardswish, functional.hardsigmoid, functional.silu, functional.mish, functional.gelu,
    functional.softplus, functional.softsign, functional.logsigmoid, lambda x: functional.softshrink(x, 0.3), lambda x: functional.hardshrink(x, 0.3),
)  # fmt: skip


def _norms_of_transposed(w):
    x = torch.cat([w, w[:, :2]], 1)
    mean, scale, ones = x.mean(2, keepdim=True), 1 / x.std(2, keepdim=True), w.new_ones(6)
    found = _aten.native_layer_norm_backward(x.mT, x, [6], mean, scale, ones, ones, [True, True, True])
    return found[0].view(-1, 6) * 2, found[1], _aten.native_layer_norm(x.mT, [6], ones, ones, 1e-5)[0].view(-1, 6) + 1


PROGRAMS = {
    "chain": (lambda a: torch.tanh(a * 2 + 1).exp() / 3 - a.sigmoid(), A),
    "transposed": (lambda a: torch.sin(a.T) + a.T.contiguous() * 2, A),
    "broadcast": (lambda a, v: a[:, None] * v + v[:, None], A, V),
    "rolled": (lambda w: (w.roll(2), w.roll((1, -2, 9), (0, 2, 0)), (w.mT * 2).roll(1, 1), w.roll(0, 1)), W),
    "windows": (lambda w: (w.unfold(2, 3, 2).sum(-1), w.unfold(0, 2, 1) * 2, w[0, 0, 0].unfold(0, 1, 1)), W),
    "sums": (lambda w: (w.sum(0), w.sum(1), w.sum(-1), w.sum((0, 2)), w.mean(), w.sum(1, keepdim=True)), W),
    "extremes": (lambda w: (w.amax(0), w.amin((1, 2)), w.max(1)[0], w.argmax(-1), w.min(0)[1], w.argmin()), W),
    "variance": (lambda w: (w.var(0), w.std(-1, correction=0), w.var()), W),
    "product": (lambda w: (w.prod(0), (w > 0).any(1), (w > -1).all(-1)), W),
    "softmax": (lambda w: (w.softmax(-1), w.log_softmax(1), torch.logsumexp(w, 0)), W),
    "norms": (lambda w: (torch.nn.functional.layer_norm(w, (6,)), torch.linalg.vector_norm(w)), W),
    "reshaped": (lambda w: (w.reshape(12, 6).T.reshape(8, 9) * 2, w.permute(2, 0, 1).reshape(-1)), W),
    "reshapes between": (
        lambda w, v: (
            ((w.reshape(12, 6) + v).reshape(3, 4, 6).tanh() * w).sum(1),
            ((w.reshape(12, 6) * v).reshape(3, 24).exp() + 1).reshape(72).reshape(6, 12).sum(0),
            (w.transpose(0, 1).reshape(12, 6) + v).reshape(4, 18).sin().sum(1),
            (w.reshape(3, 24).softmax(1).reshape(12, 6) - v).reshape(2, 6, 6) ** 2,
            ((w + v).reshape(3, 2, 2, 6).amax(2).reshape(6, 6) * v).reshape(36).roll(1),
        ),
        W,
        V,
    ),
    "one member": (
        lambda w, n: (
            torch.bmm(w[:1].reshape(1, 4, 6).repeat(1, 6, 8), w[:1].reshape(1, 6, 4).repeat(1, 8, 9)),
            torch.einsum("ij,jl->il", w[0].repeat(6, 8), w[0].mT.repeat(8, 9)),
            w[:1, 0].argmax(1), w[0, :, :1].argmax(0), w[0, :, :1].cumsum(0), w[:1, 0].cumsum(1), n.max(0)[0],
        ),
        W,
        N,
    ),
    "members in several layouts": (
        lambda w: (torch.bmm(w, w.mT), torch.bmm(w.transpose(0, 1).contiguous().transpose(0, 1), w), w @ w[0], torch.bmm(w.mT, w.flip(0).exp())),
        rows(20, 16, 16),
    ),
    "int32": (lambda n: (n.int().relu(), n.int().maximum(n.int().flip(0)), n.int().clamp(-2, 3), n.int().amax(1), n.int().max()), N),
    "extremes of many": (_extremes, rows(3, 70)),
    "a number flipped": (lambda a: a.sum().flip(0), A),
    "pieces": (lambda w: (w[:, 1:3], w[1], w[..., ::2], w[:, -1, 2:], w.unbind(1)[2], w.split(2, -1)[1]), W),
    "joined": (lambda a: (torch.cat([a, a.T.reshape(4, 6), -a], 1), torch.stack([a, a * 2], 1)), A),
    "padded": (lambda a: (torch.nn.functional.pad(a, (1, 2, -1, 3), value=2.0), a.roll(2, 1), a.flip(0, 1)), A),
    "repeated": (lambda a: (a.repeat(2, 3), a.repeat_interleave(2, 1), a.expand(3, 4, 6) + 1), A),
    "diagonals": (lambda a: (a.diagonal(1), a[:4, :4].trace(), a.tril(1), a.triu(-1), torch.diag_embed(a[0])), A),
    "picked": (lambda w, n: (w[:, n % 4], w[n % 3, 1], w[..., n % 6], w[[0, 2]][:, [1, 1, 3]]), W, N),
    "gathered": (lambda a, n: (a.gather(1, n.T % 6), a.take_along_dim(n[:, :1].T.expand(4, 3) % 6, 1)), A, N),
    "scattered": (
        lambda a, n: (a.scatter(1, n.T % 6, 9.0), a.scatter_add(1, n.T % 6, a[:, :3]), a.index_add(0, n[0] % 4, a)),
        A,
        N,
    ),
    "put": (lambda a, n: (a.index_put((n[0] % 4, n[1] % 6), a[0, :4], accumulate=True), a.index_fill(1, n[0] % 6, 3)), A, N),
    "written": (lambda a: (a.slice_scatter(a[:, :2] * 2, 1, 1, 5, 2), a.select_scatter(a[0] + 1, 0, -1)), A),
    "along": (lambda a: (a.cumsum(0), a.cumsum(1), a.cumprod(-1)), A),
    "integers": (lambda n: (n // 3, n % 5, n << 2, n >> 1, n ^ 7, n & 3, -n, n**2, n.abs(), n.sum(), ~n), N),
    "bools": (lambda a: ((a > 0) & (a < 1), ~(a > 0), (a > 0).sum(), torch.where(a > 0, a, -a), a.isnan()), A),
    "mixed": (lambda a, n: (a[0, 0] + n, a.float() * a, n * 0.5, n / 4, a.to(torch.int32) + n.T[:, :1]), A, N),
    "rounded": (lambda a: (a.round(), a.floor(), a.ceil(), a.trunc(), a.frac(), a.sign(), (a * 9).fmod(2)), A),
    "divided": (lambda a: (torch.div(a, 0.3, rounding_mode="floor"), torch.div(a, 0.3, rounding_mode="trunc"), a % 0.7), A),
    "special": (lambda a: (a.erf(), a.expm1(), a.abs().log1p(), a.atan2(a + 1), a.abs() ** 0.3, a.asinh(), a.cosh()), A),
    "numbers": (lambda a: (torch.ones(3) * 2 + a[0, 0], torch.arange(5) * a[0, 1], torch.zeros(2, 2), a.new_full((2,), 7.0)), A),
    "norms of transposed": (_norms_of_transposed, W),
    "identities": (lambda v: (torch.eye(300, dtype=v.dtype) * v[0], torch.eye(2, 3) + v[1], torch.eye(300, 6, dtype=torch.bool)), V),
    "clamped": (lambda a: (a.clamp(-0.5, 0.5), a.clamp(min=0), torch.maximum(a, -a), a.clamp(max=a[0, 0]), a.relu()), A),
    "nans": (lambda a: (a.sqrt(), a.log(), a.sqrt().amax(), torch.maximum(a.sqrt(), a), a.nan_to_num()), A),
    "in place": (lambda a: (torch.zeros(4, 6, dtype=a.dtype).add_(a).mul_(2), a.clone().t_().sub_(1), a.clone().fill_(2)), A),
    "signs": (lambda x: ((x - x).sign(), (x - x).sgn(), x.sgn(), x // x.flip(0), x // E[0], x // -E[0], x // 0.3, -7 // x, x // 0), E),
    "nothing": (lambda a: (a[:0] * 2, a[:, :0].sum(1) if False else a[:0].T, torch.cat([a[:0], a])), A),
    "number": (lambda x: (x * 2, x.sum(), x.reshape(1, 1) + 1, x.expand(3)), torch.tensor(1.5, dtype=torch.float64)),
    "itself": (lambda a, v: (a, v * 1, a, v), A, V),
    "looked at otherwise": (
        lambda a: (a.clone().squeeze_(0) * 2, (a * 2).unsqueeze_(1).sum(1), (a + 1).t_().transpose_(0, 1) * a),
        A,
    ),
    "over a part": (
        lambda a: (a.diagonal_scatter(a[:, 0], 1), a[:4, :4].diagonal_scatter(a[0, :3], -1), torch.eye(3) + a[0, 0]),
        A,
    ),
    "strided": (lambda a: (a * 2).as_strided_scatter(a[:3, :2], (3, 2), (7, 2), 1).as_strided((2, 2), (3, 1), 2), A),
    "derivatives of views": (
        lambda a: (
            _aten.slice_backward(a[:2], [5, 6], 0, 1, 5, 2),
            _aten.select_backward(a[0], [4, 6], 0, -1),
            _aten.diagonal_backward(a[:, 0], [4, 6], 2, 0, 1),
        ),
        A,
    ),
    "activations": (lambda a: tuple(f(a) for f in ACTIVATIONS), A),
    "derivatives of activations": (lambda a: tuple(torch.func.vjp(f, a)[1](a)[0] for f in ACTIVATIONS), A),
    "lengths": (lambda a: (torch.dist(a, a.flip(0)), torch.hypot(a, a + 1)), A),
    "draws": (lambda k: (_uniform(k), _uniform(k) * 2), torch.tensor([3, 4])),
}  # fmt: skip


def _uniform(key: Tensor) -> Tensor:
    import torchpure as tp

    return tp.random.uniform(key, (5,))


def _attention(x: Tensor, w: Tensor) -> Tensor:
    """Attend over values that the program computes in another layout than torch."""
    q, k, v = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in (x @ w).split(32, 2))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


S = A @ A.T + torch.eye(4, dtype=A.dtype)
PICTURE, FILTERS = rows(2, 3, 8, 8), rows(4, 3, 3, 3, seed=1)
BY_TORCH = {
    "factors": (lambda s: (*torch.linalg.qr(s), torch.linalg.cholesky(s), torch.linalg.eigh(s)[0]), S),
    "solutions": (lambda s, a: (torch.linalg.solve(s, a), torch.linalg.inv(s), torch.linalg.det(s)), S, A),
    "members": (lambda s, a: torch.linalg.solve_triangular(s.expand(2, 4, 4), a.flip(0).expand(2, 4, 6), upper=True), S, A),
    "sorted": (lambda a: (*a.topk(2, 0), *a.kthvalue(2), *a.cummax(1), a.median()), A),
    "places": (lambda a: (torch.searchsorted(a[0].sort()[0], a[1], right=True), torch.bucketize(a, a[0].sort()[0])), A),
    "distances": (lambda a: torch.cdist(a, a[:2], p=1.5), A),
    "convolved": (lambda x, w: (torch.conv2d(x, w, w[:, 0, 0, 0], 2, 1), torch.conv_transpose2d(x[:, :2], w[:2, :2])), PICTURE, FILTERS),
    "convolved backwards": (
        lambda x, w: _aten.convolution_backward(
            torch.conv2d(x, w), x, w, [4], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
        )[:2],
        PICTURE,
        FILTERS,
    ),
    "attention": (_attention, rows(2, 64, 16), rows(16, 96, seed=1)),
    "pooled": (lambda x: (*torch.nn.functional.max_pool2d(x, 2, return_indices=True), torch.nn.functional.interpolate(x, (5, 7), mode="bilinear")), PICTURE),
    "scattered": (lambda a, n: (*(a.scatter_reduce(1, n.T % 6, a[:, :3], kind) for kind in ("amax", "amin", "mean")), a.scatter_reduce(0, n[:, :3] % 4, a, "sum", include_self=False)), A, N),
    "masked": (lambda a, v: (a.index_put((a > 0,), v[0]), a.index_put((a[:, 0] > 0,), v, accumulate=True), _aten.index_put(a.T, [None, a[:, 0] > 0], v[:, None])), A, V),
    "decimals": (lambda a: (a.round(decimals=1), a.T.round(decimals=-1)), A),
    "least squares": (lambda a, b: tuple(torch.linalg.lstsq(a, b)), B, B[:, :2]),
    "aligned": (lambda a, n: torch.nn.functional.ctc_loss(a[:, None].log_softmax(-1), n[:1, :3].abs() % 5 + 1, n[1, :1] * 0 + 4, n[1, :1] * 0 + 2), A, N),
    "multilabel": (lambda a: torch.nn.functional.multilabel_margin_loss(a[:3, :4], PADDED), A),
    "scalars": (lambda a, n: (a[0, 0].cumsum(0), a[0, 0].argmax(), *a[0, 0].sort(), a[0, 0].gather(0, n[1, 2] * 0), a[0, 0].index_select(0, n[0, :1] * 0)), A, N),
    "empty": (lambda a: (torch.special.bessel_j0(a[:0]), torch.special.bessel_j0(a), torch.linalg.inv(a[:0, :0])), A),
    "in a loop": (
        lambda s, a: scan_p(lambda c, row, s: (torch.linalg.solve(s, c) + row, c.topk(2)[0]), (a[:, 0],), (a.T,), (s,), 6, False),
        S,
        A,
    ),
}  # fmt: skip
