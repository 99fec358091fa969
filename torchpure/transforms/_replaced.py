"""Operations of torch whose rules for transforms are wrong, written with others that are right.

Found over torch's own database of operators (tests/compositions): in torch 2.13 the forward derivative of
`scatter_reduce` with "prod" is zero, those of `triangular_solve` and `cholesky_inverse` are wrong under a gradient, and
the gradients of `as_strided_scatter` and of a mapped `select_scatter` are wrong. Where there is no other way, an error
says so. A few that raise are here too. Those whose forward derivative cannot be differentiated again are replaced where
one is at work; so are those that give their result the very tensor which is the tangent of their argument, and which
changes too when the result is changed in place.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import functional as F

from torchpure import tree
from torchpure.errors import TransformError

from . import _solvers
from ._backwards import by_backward
from ._check import check
from ._levels import functorch, innermost
from ._replacing import BEFORE, FORWARD, MAPPED, REPLACED, kinds


def _triangular_solve(
    b: Tensor, a: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    part = a.triu() if upper else a.tril()
    if transpose:
        part, upper = part.mT, not upper
    solution = torch.linalg.solve_triangular(part, b, upper=upper, unitriangular=unitriangular)
    return torch.return_types.triangular_solve((solution, a.clone()))


def _cholesky_inverse(x: Tensor, upper: bool = False) -> Tensor:
    factor = x.triu().mH if upper else x.tril()
    half = torch.linalg.solve_triangular(factor, torch.eye(x.shape[-1], dtype=x.dtype, device=x.device), upper=False)
    return half.mH @ half


def _select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    places = torch.arange(input.shape[dim], device=input.device) == index % input.shape[dim]
    chosen = places.reshape([-1 if i == dim % input.ndim else 1 for i in range(input.ndim)])
    return torch.where(chosen, src.unsqueeze(dim), input)


def _as_strided_scatter(
    input: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None
) -> Tensor:
    if not input.is_contiguous():
        raise TransformError("as_strided_scatter has a wrong derivative in torch: make the input contiguous")
    start = 0 if storage_offset is None else storage_offset - input.storage_offset()
    places = torch.arange(input.numel(), device=input.device).as_strided(size, stride, start).reshape(-1)
    return input.reshape(-1).scatter(0, places, src.reshape(-1)).reshape(input.shape)


def _column_stack(tensors: Any) -> Tensor:
    return torch.cat([leaf.reshape(-1, 1) if leaf.ndim <= 1 else leaf for leaf in tensors], 1)


def _scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    if reduce == "prod" and not _only_gradients():
        raise TransformError(
            "scatter_reduce with 'prod' has no forward derivative and no rule for vmap in torch: use grad or vjp "
            "alone, or sum logarithms"
        )
    return torch.scatter_reduce(input, dim, index, src, reduce, include_self=include_self)


def _only_gradients() -> bool:
    return all(kind == functorch.TransformType.Grad for kind in kinds())


def _tensor_split(input: Tensor, indices_or_sections: Any = None, dim: int = 0, **other: Any) -> Any:
    parts = indices_or_sections if indices_or_sections is not None else next(iter(other.values()))
    return torch.tensor_split(input, _numbers(parts), dim)


def _narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    return torch.narrow(input, dim, _numbers(start), length)


def _numbers(value: Any) -> Any:
    """Read numbers that a function has put into a tensor: torch does so itself, and has no rule for it."""
    if not isinstance(value, Tensor):
        return value
    found = value.tolist()
    return tuple(found) if isinstance(found, list) else found


def _gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Compute what torch does, with a look at the sign of the variance that works for mapped ones."""
    spread = torch.full_like(input, var) if isinstance(var, float) else var
    if isinstance(var, Tensor) and spread.shape != input.shape and spread.shape == input.shape[:-1]:
        spread = spread.unsqueeze(-1)
    check(spread >= 0, "gaussian_nll_loss: the variance has a negative entry")
    spread = spread + (spread.clamp(min=eps) - spread).detach()  # the derivative is that of the variance as given
    loss = 0.5 * (torch.log(spread) + (input - target) ** 2 / spread)
    loss = loss + 0.5 * math.log(2 * math.pi) if full else loss
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def _linear_cross_entropy(*args: Any, options: Any = None, **kwargs: Any) -> Tensor:
    return F.linear_cross_entropy(*args, options=None, **kwargs)  # in chunks it knows no transform


REPLACED.update(
    {
        torch.triangular_solve: _triangular_solve,
        Tensor.triangular_solve: _triangular_solve,
        torch.cholesky_inverse: _cholesky_inverse,
        Tensor.cholesky_inverse: _cholesky_inverse,
        torch.select_scatter: _select_scatter,
        Tensor.select_scatter: _select_scatter,
        torch.as_strided_scatter: _as_strided_scatter,
        Tensor.as_strided_scatter: _as_strided_scatter,
        torch.column_stack: _column_stack,
        torch.scatter_reduce: _scatter_reduce,
        Tensor.scatter_reduce: _scatter_reduce,
        torch.linalg.solve: _solvers.solve,
        torch.linalg.solve_ex: _solvers.solve_ex,
        torch.linalg.tensorsolve: _solvers.tensorsolve,
        torch.linalg.slogdet: _solvers.slogdet,
        torch.slogdet: _solvers.slogdet,
        Tensor.slogdet: _solvers.slogdet,
        torch.linalg.det: _solvers.determinant,
        torch.det: _solvers.determinant,
        Tensor.det: _solvers.determinant,
        torch.logdet: _solvers.logdet,
        Tensor.logdet: _solvers.logdet,
        torch.linalg.lu_solve: _solvers.lu_solve,
        torch.tensor_split: _tensor_split,
        Tensor.tensor_split: _tensor_split,
        torch.narrow: _narrow,
        Tensor.narrow: _narrow,
        F.gaussian_nll_loss: _gaussian_nll_loss,
        F.linear_cross_entropy: _linear_cross_entropy,
    }
)


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    return _scaled(_standard(input, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    sizes = (1, -1, *[1] * (input.ndim - 2))
    if training:
        dims = (0, *range(2, input.ndim))
        if running_mean is not None:
            _renew(running_mean, running_var, input, dims, momentum)
        out = _standard(input, dims, eps)
    else:
        assert running_mean is not None and running_var is not None
        out = (input - running_mean.reshape(sizes)) * torch.rsqrt(running_var.reshape(sizes) + eps)
    return _scaled(out, *(None if leaf is None else leaf.reshape(sizes) for leaf in (weight, bias)))


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return _batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None:
        _renew(running_mean, running_var, input, tuple(range(2, input.ndim)), momentum)
    sizes = (1, -1, *[1] * (input.ndim - 2))
    out = _standard(input, tuple(range(2, input.ndim)), eps)
    return _scaled(out, *(None if leaf is None else leaf.reshape(sizes) for leaf in (weight, bias)))


def _renew(mean: Tensor, var: Tensor | None, input: Tensor, dims: tuple[int, ...], momentum: float) -> None:
    """Renew running statistics in place with their tangents; what comes from the input is a constant, as in torch."""
    assert var is not None
    given = input.detach().to(mean.dtype)
    for old, new in ((mean, given.mean(dims)), (var, given.var(dims))):
        old.mul_(1 - momentum).add_(momentum * (new if new.ndim == 1 else new.mean(0)))


def _renews(kind: str) -> Any:
    """Count the change of running statistics, which torch's kernels change without: who watches them is to see it."""

    def before(args: Any, kwargs: Any) -> tuple[Any, Any]:
        given = dict(zip(_NORMS[kind], args, strict=False)) | kwargs
        if given.get(_NORMS[kind][5], kind == "instance"):
            for leaf in (given.get("running_mean"), given.get("running_var")):
                if isinstance(leaf, Tensor) and not innermost(leaf).is_inference():
                    increment_version(innermost(leaf))
        return args, kwargs

    return before


_FIRST = ("input", "running_mean", "running_var", "weight", "bias")
_NORMS = {"batch": (*_FIRST, "training"), "instance": (*_FIRST, "use_input_stats")}
BEFORE.update({F.batch_norm: _renews("batch"), F.instance_norm: _renews("instance")})


def _native_layer_norm(input: Tensor, shape: Any, weight: Any, bias: Any, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    dims = tuple(range(-len(shape), 0))
    mean = input.mean(dims, keepdim=True)
    scale = torch.rsqrt(((input - mean) ** 2).mean(dims, keepdim=True) + eps)
    return _scaled((input - mean) * scale, weight, bias), mean.detach(), scale.detach()  # constants for torch too


def _native_batch_norm(*_: Any) -> Any:
    raise TransformError(
        "native_batch_norm has no forward derivative of its statistics: use torch.nn.functional.batch_norm"
    )


def _vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **_: Any
) -> Tensor:
    if ord != 2 or dtype is not None or x.dtype not in {torch.float32, torch.float64}:
        return torch.linalg.vector_norm(x, ord, dim, keepdim, dtype=dtype)
    squares = (x**2).sum() if dim is None and not keepdim else (x**2).sum(dim, keepdim)
    positive = squares > 0  # at zero the derivative is zero, as torch has it
    return torch.where(positive, torch.sqrt(torch.where(positive, squares, 1.0)), 0.0)


def _linalg_norm(x: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, **other: Any) -> Tensor:
    if ord is None or (ord == 2 and (isinstance(dim, int) or (dim is None and x.ndim == 1))):
        return _vector_norm(x, 2, dim, keepdim, **other)
    return torch.linalg.norm(x, ord, dim, keepdim, **other)


def _norm(
    x: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None, dtype: Any = None
) -> Tensor:
    if p in {"fro", 2, None} and out is None:
        return _vector_norm(x, 2, dim, keepdim, dtype=dtype)
    return torch.norm(x, p, dim, keepdim, out, dtype)


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.numel() not in {1, channels} or weight.dtype != x.dtype:
        return torch.prelu(x, weight)  # which says what is wrong
    return torch.where(x > 0, x, x * weight.reshape([-1 if dim == 1 else 1 for dim in range(x.ndim)]))


def _standard(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    wide = x.float() if x.dtype in {torch.float16, torch.bfloat16} else x  # as torch's own kernels compute
    centred = wide - wide.mean(dims, keepdim=True)
    return (centred * torch.rsqrt((centred**2).mean(dims, keepdim=True) + eps)).to(x.dtype)


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _apart(operation: Any) -> Any:
    """Give results a tangent of their own, which may be changed in place: torch hands on that of what went in."""

    def run(*args: Any, **kwargs: Any) -> Any:
        out = operation(*args, **kwargs)
        return tree.map(lambda leaf: leaf.clone(), out) if kwargs.get("out") is None else out

    return run


_HANDS_ON = (
    torch.frac, Tensor.frac, torch.fmod, Tensor.fmod, torch.remainder, Tensor.remainder, Tensor.__mod__,
    torch.alias_copy, torch.as_strided_copy, torch.diagonal_copy, torch.expand_copy,
    torch.permute_copy, torch.select_copy, torch.slice_copy, torch.split_copy,
    torch.split_with_sizes_copy, torch.squeeze_copy, torch.t_copy, torch.transpose_copy, torch.unbind_copy,
    torch.unfold_copy, torch.unsqueeze_copy, torch.view_as_complex_copy, torch.view_as_real_copy, torch.view_copy,
)  # fmt: skip
_BY_BACKWARD = (
    torch.linalg.householder_product, torch.linalg.eigh, torch.orgqr, Tensor.orgqr,
    torch.ops.aten._safe_softmax.default,
)  # fmt: skip
FORWARD.update(
    {  # replaced where a forward derivative is at work
        F.layer_norm: _layer_norm,
        torch.layer_norm: _layer_norm,
        F.batch_norm: _batch_norm,
        F.instance_norm: _instance_norm,
        torch.native_layer_norm: _native_layer_norm,
        torch.native_batch_norm: _native_batch_norm,
        torch._native_batch_norm_legit: _native_batch_norm,
        torch.linalg.vector_norm: _vector_norm,
        torch.linalg.norm: _linalg_norm,
        torch.norm: _norm,
        Tensor.norm: _norm,
        torch.prelu: _prelu,
        Tensor.prelu: _prelu,
        **{operation: by_backward(operation) for operation in _BY_BACKWARD},
        **{operation: _apart(operation) for operation in _HANDS_ON},
    }
)
MAPPED.update(
    {  # replaced where the gradient of a gradient, which torch writes in place, was mapped
        F.layer_norm: _layer_norm,
        torch.layer_norm: _layer_norm,
        torch.native_layer_norm: _native_layer_norm,
        F.instance_norm: _instance_norm,
        F.batch_norm: _batch_norm,
    }
)
