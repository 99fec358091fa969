"""First and second derivatives of normalizations, softmax, logarithms of sums and of determinants, and norms.

Each rule takes the arguments of its operation. It returns how the operation acts on tangents, with any number of
dimensions in front, and the form of its second derivatives along pairs of tangents. Both cost a few operations of the
size of the tangents; nested derivatives cost several times as much.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Map = Callable[[Tensor], Tensor]
Pairs = Callable[[Tensor, Tensor, Map], Tensor]  # (left, right, collapse): rows of tangents, and how to add them up


class ClosedForm(NamedTuple):
    """The derivatives of an operation at one operand."""

    push: Map  # (…, *operand) -> (…, *value)
    bend: Pairs | None  # the collapsed second derivatives along pairs of rows; None: zero
    result: int = 0  # which of several results; the others, of the same shape, are constant


def _softmax(x: Tensor, dim: Any = None, *rest: Any, dtype: Any = None, _stacklevel: int = 3) -> ClosedForm | None:
    if dim is None or rest or dtype not in {None, x.dtype}:
        return None
    weights, dim = torch.softmax(x, dim), _from_behind(x, dim)

    def centred(row: Tensor) -> Tensor:
        return row - (weights * row).sum(dim, keepdim=True)

    def push(row: Tensor) -> Tensor:
        return weights * centred(row)

    def bend(left: Tensor, right: Tensor, collapse: Map) -> Tensor:
        return push(collapse(_products(centred, left, right)))

    return ClosedForm(push, bend)


def _log_softmax(x: Tensor, dim: Any = None, *rest: Any, dtype: Any = None, _stacklevel: int = 3) -> ClosedForm | None:
    if dim is None or rest or dtype not in {None, x.dtype}:
        return None
    weights, dim = torch.softmax(x, dim), _from_behind(x, dim)

    def centred(row: Tensor) -> Tensor:
        return row - (weights * row).sum(dim, keepdim=True)

    def bend(left: Tensor, right: Tensor, collapse: Map) -> Tensor:
        spread = -(weights * collapse(_products(centred, left, right))).sum(dim, keepdim=True)
        return spread.expand(*spread.shape[: spread.ndim - x.ndim], *x.shape)

    return ClosedForm(centred, bend)


def _logsumexp(x: Tensor, dim: Any, keepdim: bool = False) -> ClosedForm:
    dims = _dims(x, dim)
    weights = torch.exp(x - torch.logsumexp(x, dims, keepdim=True))

    def mean(row: Tensor) -> Tensor:
        return (weights * row).sum(dims, keepdim=keepdim)

    def centred(row: Tensor) -> Tensor:
        return row - (weights * row).sum(dims, keepdim=True)

    return ClosedForm(mean, lambda left, right, collapse: mean(collapse(_products(centred, left, right))))


def _layer_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> ClosedForm:
    return _normalized(x, tuple(range(-len(normalized_shape), 0)), weight, eps, centre=True)


def _rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None
) -> ClosedForm | None:
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _normalized(x, tuple(range(-len(normalized_shape), 0)), weight, eps, centre=False)


def _group_norm(
    x: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> ClosedForm:
    groups = (x.shape[0], num_groups, -1)
    scale = None if weight is None else weight.reshape(-1, *[1] * (x.ndim - 2))
    inner = _normalized(x.reshape(groups), (-1,), None, eps, centre=True)

    def split(row: Tensor) -> Tensor:
        return row.reshape(*row.shape[: row.ndim - x.ndim], *groups)

    def joined(row: Tensor) -> Tensor:
        whole = row.reshape(*row.shape[:-3], *x.shape)
        return whole if scale is None else whole * scale

    def bend(left: Tensor, right: Tensor, collapse: Map) -> Tensor:
        rows = split(left)
        assert inner.bend is not None
        return joined(inner.bend(rows, rows if left is right else split(right), collapse))

    return ClosedForm(lambda row: joined(inner.push(split(row))), bend)


def _normalized(x: Tensor, dims: tuple[int, ...], weight: Any, eps: float, centre: bool) -> ClosedForm:
    """Differentiate y = h s w, where h is x or x less its mean, and s = (mean h² + eps)^(-1/2).

    With g = mean(h s h′): (h s)′ = s (h′ - h s g), and (h s)″ = s² (h s (3 g² - mean h′²) - 2 g h′).
    """
    at = x - x.mean(dims, keepdim=True) if centre else x
    scale = torch.rsqrt(at.square().mean(dims, keepdim=True) + eps)
    value = at * scale
    outer = scale if weight is None else scale * weight

    def moved(row: Tensor) -> tuple[Tensor, Tensor]:
        row = row - row.mean(dims, keepdim=True) if centre else row
        return row, (value * row).mean(dims, keepdim=True)

    def push(row: Tensor) -> Tensor:
        change, slope = moved(row)
        return outer * (change - value * slope)

    def bend(left: Tensor, right: Tensor, collapse: Map) -> Tensor:
        a, slope_a = moved(left)
        b, slope_b = (a, slope_a) if left is right else moved(right)
        mixed = collapse(2 * slope_a * a if left is right else slope_a * b + slope_b * a)
        spread = collapse(3 * slope_a * slope_b - (a * b).mean(dims, keepdim=True))
        return outer * scale * (value * spread - mixed)

    return ClosedForm(push, bend)


def _log_determinant(x: Tensor) -> ClosedForm:
    inverse = torch.linalg.inv(x)

    def push(row: Tensor) -> Tensor:
        return (inverse.mT * row).sum((-2, -1))

    def bend(left: Tensor, right: Tensor, collapse: Map) -> Tensor:
        a = inverse @ left
        b = a if left is right else inverse @ right
        return -collapse((a.mT * b).sum((-2, -1)))

    return ClosedForm(push, bend)


def _sign_and_log_determinant(x: Tensor) -> ClosedForm:
    return _log_determinant(x)._replace(result=1)


def _inverse(x: Tensor) -> ClosedForm:
    inverse = torch.linalg.inv(x)

    def push(row: Tensor) -> Tensor:
        return -(inverse @ row @ inverse)

    def bend(left: Tensor, right: Tensor, collapse: Map) -> Tensor:
        a = inverse @ left
        b = a if left is right else inverse @ right
        return collapse(2 * (a @ a) if left is right else a @ b + b @ a) @ inverse

    return ClosedForm(push, bend)


def _norm(x: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, **kwargs: Any) -> ClosedForm | None:
    return _vector_norm(x, 2, dim, keepdim) if p in {"fro", 2, None} and not _given(kwargs) else None


def _linalg_norm(x: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, **kw: Any) -> ClosedForm | None:
    of_vectors = ord is None or (ord == 2 and (isinstance(dim, int) or (dim is None and x.ndim == 1)))
    return _vector_norm(x, 2, dim, keepdim) if of_vectors and not _given(kw) else None


def _vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, **kw: Any) -> ClosedForm | None:
    """Differentiate n = |x|: n′ = x·x′/n, n″ = (|x′|² - n′²)/n. At zero both are zero, as torch has it."""
    if ord != 2 or _given(kw):
        return None
    dims = _dims(x, dim)
    norm = torch.linalg.vector_norm(x, 2, dims, keepdim=True)
    inverse = torch.where(norm == 0, 0.0, 1 / torch.where(norm == 0, 1.0, norm))
    unit = x * inverse

    def push(row: Tensor) -> Tensor:
        return (unit * row).sum(dims, keepdim=keepdim)

    def bend(left: Tensor, right: Tensor, collapse: Map) -> Tensor:
        along = (unit * left).sum(dims, keepdim=True) * (unit * right).sum(dims, keepdim=True)
        bent = inverse * collapse((left * right).sum(dims, keepdim=True) - along)
        return bent if keepdim else bent.squeeze(dims)

    return ClosedForm(push, bend)


def _analytic(derivatives: Callable[[Tensor], tuple[Tensor, Any]]) -> "Rule":
    """Differentiate a function of each complex entry that has a complex derivative."""

    def rule(z: Tensor) -> ClosedForm | None:
        if not z.is_complex():
            return None
        first, second = derivatives(z)
        return ClosedForm(lambda row: first * row, lambda a, b, collapse: second * collapse(a * b))

    return rule


def _of_tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.tanh(z)
    slope = 1 - value * value
    return slope, -2 * value * slope


_ANALYTIC: dict[str, Callable[[Tensor], tuple[Tensor, Any]]] = {  # f′ and f″
    "exp": lambda z: (torch.exp(z),) * 2,
    "sin": lambda z: (torch.cos(z), -torch.sin(z)),
    "cos": lambda z: (-torch.sin(z), -torch.cos(z)),
    "tanh": _of_tanh,
    "log": lambda z: (1 / z, -1 / (z * z)),
    "reciprocal": lambda z: (-1 / (z * z), 2 / (z * z * z)),
    "square": lambda z: (2 * z, 2),
}


def _fourier(func: Callable[..., Tensor]) -> "Rule":
    def rule(x: Tensor, n: Any = None, dim: int = -1, norm: Any = None) -> ClosedForm:
        return ClosedForm(lambda row: func(row, n, _from_behind(x, dim), norm), None)

    return rule


def _given(kwargs: dict[str, Any]) -> bool:
    return any(one is not None for one in kwargs.values())


def _products(of: Map, left: Tensor, right: Tensor) -> Tensor:
    moved = of(left)
    return moved.square() if left is right else moved * of(right)


def _from_behind(x: Tensor, dim: int) -> int:
    return dim if dim < 0 else dim - x.ndim


def _dims(x: Tensor, dim: Any) -> tuple[int, ...]:
    """Count dimensions from behind; None is all."""
    dims = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return tuple(_from_behind(x, one) for one in dims)


Rule = Callable[..., ClosedForm | None]
_TRANSFORMS = (torch.fft.fft, torch.fft.ifft, torch.fft.rfft, torch.fft.irfft, torch.fft.hfft, torch.fft.ihfft)
_RULES: dict[Any, Rule] = {
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax), _softmax),
    **dict.fromkeys((F.log_softmax, torch.log_softmax, Tensor.log_softmax, torch.special.log_softmax), _log_softmax),
    **dict.fromkeys((torch.logsumexp, Tensor.logsumexp, torch.special.logsumexp), _logsumexp),
    **dict.fromkeys((F.layer_norm, torch.layer_norm), _layer_norm),
    **dict.fromkeys((F.rms_norm, torch.rms_norm), _rms_norm),
    F.group_norm: _group_norm,
    **dict.fromkeys((torch.logdet, Tensor.logdet), _log_determinant),
    **dict.fromkeys((torch.linalg.slogdet, torch.slogdet, Tensor.slogdet), _sign_and_log_determinant),
    **dict.fromkeys((torch.norm, Tensor.norm), _norm),
    torch.linalg.norm: _linalg_norm,
    torch.linalg.vector_norm: _vector_norm,
    **dict.fromkeys((torch.linalg.inv, torch.inverse, Tensor.inverse), _inverse),
    **{func: _fourier(func) for func in _TRANSFORMS},
    **{getattr(space, name): _analytic(both) for name, both in _ANALYTIC.items() for space in (torch, Tensor)},
}
_OF_COMPLEX = frozenset({*_TRANSFORMS, *(getattr(space, name) for name in _ANALYTIC for space in (torch, Tensor))})


def closed_form(func: Any, value: Tensor, raw: Callable[[Rule], Any]) -> ClosedForm | None:
    """Return the derivatives of an operation at its operand; None if it has no rule for these arguments.

    `raw` calls a function with the arguments of the operation.

    >>> x = torch.tensor([0.0, 0.0])
    >>> form = closed_form(torch.logsumexp, x, lambda rule: rule(x, 0))
    >>> form.push(torch.tensor([1.0, 3.0]))
    tensor(2.)
    """
    rule = _RULES.get(func)
    if rule is None or (value.is_complex() and func not in _OF_COMPLEX):
        return None
    return raw(lambda *args, **kwargs: rule(*args, **kwargs) if args and args[0] is value else None)
