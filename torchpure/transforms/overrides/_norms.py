"""Layer, batch and instance norm by their formulas.

In torch 2.13 their forward derivatives take the mean and the variance for constants when they are differentiated again.
Their second backward passes write in place, which fails under vmap. They take the statistics for constants too, so
third gradients are wrong.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import functional as F

from torchpure._torch import native_batch_norm_legit
from torchpure.errors import TransformError
from torchpure.transforms.engine import innermost

from ._override import Override, Where


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any, **__: Any
) -> Tensor:
    return _scaled(_standardize(input, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)


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
            _update_statistics(running_mean, running_var, input, dims, momentum)
        out = _standardize(input, dims, eps)
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
        _update_statistics(running_mean, running_var, input, tuple(range(2, input.ndim)), momentum)
    sizes = (1, -1, *[1] * (input.ndim - 2))
    out = _standardize(input, tuple(range(2, input.ndim)), eps)
    return _scaled(out, *(None if leaf is None else leaf.reshape(sizes) for leaf in (weight, bias)))


def _update_statistics(mean: Tensor, var: Tensor | None, input: Tensor, dims: tuple[int, ...], momentum: float) -> None:
    """Update running statistics in place, with their tangents; the input's part is a constant, as in torch."""
    assert var is not None
    given = input.detach().to(mean.dtype)
    for old, new in ((mean, given.mean(dims)), (var, given.var(dims))):
        old.mul_(1 - momentum).add_(momentum * (new if new.ndim == 1 else new.mean(0)))


def _count_updates(kind: str) -> Any:
    """Return an interception that bumps the versions of running statistics, so that the guard notices the update.

    torch's kernels update them without. A kernel saves them for its backward pass. It gets aliases with versions of
    their own, because a layer may run twice.
    """
    names = _NORMS[kind]

    def before(args: Any, kwargs: Any) -> tuple[Any, Any]:
        given = dict(zip(names, args, strict=False)) | kwargs
        if not given.get(names[5], kind == "instance"):
            return args, kwargs
        for name in _STATISTICS:
            leaf = given.get(name)
            if isinstance(leaf, Tensor):
                if not innermost(leaf).is_inference():
                    increment_version(innermost(leaf))
                if innermost(leaf) is leaf and not leaf.requires_grad:
                    given[name] = leaf.data
                note_update(leaf)
        return (), given

    return before


class _Thread(threading.local):
    updated: list[Tensor] | None = None  # the running statistics that norms have updated, where somebody asks


_thread = _Thread()


@contextmanager
def updated_statistics() -> Iterator[list[Tensor]]:
    """Collect the running statistics that norms update inside of the block: such an update has no derivative."""
    before, _thread.updated = _thread.updated, []
    try:
        yield _thread.updated
    finally:
        _thread.updated = before


def note_update(leaf: Tensor) -> None:
    """Note that running statistics were updated."""
    if _thread.updated is not None:
        _thread.updated.append(leaf)


_STATISTICS = ("running_mean", "running_var")
_FIRST = ("input", "running_mean", "running_var", "weight", "bias")
_LAST = ("momentum", "eps")
_NORMS = {"batch": (*_FIRST, "training", *_LAST), "instance": (*_FIRST, "use_input_stats", *_LAST)}


def _native_layer_norm(input: Tensor, shape: Any, weight: Any, bias: Any, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    dims = tuple(range(-len(shape), 0))
    mean = input.mean(dims, keepdim=True)
    scale = torch.rsqrt(((input - mean) ** 2).mean(dims, keepdim=True) + eps)
    return _scaled((input - mean) * scale, weight, bias), mean.detach(), scale.detach()  # torch's are constants too


def _native_batch_norm(*_: Any) -> Any:
    raise TransformError(
        "native_batch_norm has no forward derivative of its statistics: use torch.nn.functional.batch_norm"
    )


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in {torch.float16, torch.bfloat16} else x  # torch's kernels compute in float32 too


def _standardize(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    wide = _wide(x)
    centred = wide - wide.mean(dims, keepdim=True)
    return (centred * torch.rsqrt((centred**2).mean(dims, keepdim=True) + eps)).to(x.dtype)


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Scale and shift; the result has the dtype of `x` if weights have another."""
    if all(leaf is None or leaf.dtype == x.dtype for leaf in (weight, bias)):
        x = x if weight is None else x * weight
        return x if bias is None else x + bias
    wide = _wide(x) if weight is None else _wide(x) * weight
    return (wide if bias is None else wide + bias).to(x.dtype)


_FORWARD_OR_RETRY = Where.FORWARD_MODE | Where.THIRD_GRADIENT | Where.VMAP_RETRY
OVERRIDES = (
    Override([F.layer_norm, torch.layer_norm], _FORWARD_OR_RETRY, _layer_norm),
    Override([F.batch_norm], _FORWARD_OR_RETRY, _batch_norm),
    Override([F.instance_norm], _FORWARD_OR_RETRY, _instance_norm),
    Override([torch.native_layer_norm], _FORWARD_OR_RETRY, _native_layer_norm),
    Override([torch.native_batch_norm, native_batch_norm_legit], Where.FORWARD_MODE, _native_batch_norm),
    Override([F.batch_norm], Where.INTERCEPTED, _count_updates("batch")),
    Override([F.instance_norm], Where.INTERCEPTED, _count_updates("instance")),
)
