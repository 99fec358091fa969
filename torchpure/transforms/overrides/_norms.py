"""Operations of torch whose rules for transforms are wrong, written with others that are right.

Found over torch's own database of operators (tests/compositions): in torch 2.13 the forward derivative of
`scatter_reduce` with "prod" is zero, those of `triangular_solve` and `cholesky_inverse` are wrong under a gradient, and
the gradients of `as_strided_scatter` and of a mapped `select_scatter` are wrong. Where there is no other way, an error
says so. A few that raise are here too. Those whose forward derivative cannot be differentiated again are replaced where
one is at work; so are those that give their result the very tensor which is the tangent of their argument, and which
changes too when the result is changed in place.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import functional as F

from torchpure._torch import native_batch_norm_legit
from torchpure.errors import TransformError
from torchpure.transforms.engine import BEFORE, FORWARD, MAPPED, REPLACED, innermost

from . import _solvers
from ._by_transposition import by_backward
from ._linear_algebra import _cholesky_inverse, _linalg_norm, _norm, _triangular_solve, _vector_norm
from ._losses import _gaussian_nll_loss, _linear_cross_entropy, _prelu
from ._scatter import _as_strided_scatter, _column_stack, _narrow, _scatter_reduce, _select_scatter, _tensor_split
from ._tangents import _BY_BACKWARD, _HANDS_ON, _apart

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


def _standard(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    wide = x.float() if x.dtype in {torch.float16, torch.bfloat16} else x  # as torch's own kernels compute
    centred = wide - wide.mean(dims, keepdim=True)
    return (centred * torch.rsqrt((centred**2).mean(dims, keepdim=True) + eps)).to(x.dtype)


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


FORWARD.update(
    {  # replaced where a forward derivative is at work
        F.layer_norm: _layer_norm,
        torch.layer_norm: _layer_norm,
        F.batch_norm: _batch_norm,
        F.instance_norm: _instance_norm,
        torch.native_layer_norm: _native_layer_norm,
        torch.native_batch_norm: _native_batch_norm,
        native_batch_norm_legit: _native_batch_norm,
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
