"""Euclidean norms by torch, whose value shows that torch is right, derivatives too: most are, so they are tried first.

A rule here takes the operation and its arguments, and returns the result, or None: then another rule decides.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure.transforms.engine import all_between, may_look

from ._norms import smallest_norm

Quick = Callable[[Any, Any, Any], Any]
_EUCLIDEAN = ("fro", 2, None)
_RANGES = {  # dtype -> the smallest and the largest norm whose squares are in range
    dtype: (smallest_norm(dtype, 2.0), 1 / smallest_norm(dtype, 2.0)) for dtype in (torch.float32, torch.float64)
}


def _may_be_right(*tensors: Tensor) -> bool:
    """Return whether to try torch: as in `right_in_torch`, and a look at another device than the CPU would wait."""
    x = tensors[0]
    return x.is_cpu and x.dtype in _RANGES and may_look(2, *tensors)


def _is_right(norm: Tensor, above: float = 0.0) -> bool:
    """Return whether no square left the range of its numbers."""
    low, high = _RANGES.get(norm.dtype, (math.inf, 0.0))
    return all_between(norm, low if low > above else above, high)


def _by_value(operands: int = 1, order: tuple[str, int] = ("", 9), orders: tuple[Any, ...] = (2,)) -> Quick:
    """Return the rule of an operation whose value is a norm, if its order (a name and a position) is one of some.

    The first of them is the usual one.
    """
    name, at = order

    def run(operation: Any, args: Any, kwargs: Any) -> Any:
        if len(args) < operands or (len(args) > operands and _any_tensor(args[operands:])):
            return None
        if kwargs and (_any_tensor(kwargs.values()) or kwargs.get(name, orders[0]) not in orders):
            return None
        if (len(args) > at and args[at] not in orders) or not _may_be_right(*args[:operands]):
            return None
        value = operation(*args, **kwargs) if kwargs else operation(*args)
        return value if _is_right(value[0] if value.__class__ is tuple else value) else None

    return run


def _any_tensor(options: Any) -> bool:
    return any(isinstance(option, Tensor) for option in options)


def _by_parts(rule: Callable[..., Any]) -> Quick:
    """Return the rule of an operation that takes norms and divides by them."""

    def run(operation: Any, args: Any, kwargs: Any) -> Any:
        return rule(*args, **kwargs) if kwargs else rule(*args)

    return run


def _norm(
    input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None, dtype: Any = None
) -> Tensor | None:
    """Compute `torch.norm`, if torch is right."""
    known = out is None and not isinstance(p, Tensor) and p in _EUCLIDEAN
    if not known or input.layout is not torch.strided or not _may_be_right(input):
        return None
    value = torch.linalg.vector_norm(input, 2, dim, keepdim, dtype=dtype)
    return value if _is_right(value) else None


def _normalize(input: Tensor, p: Any = 2.0, dim: Any = 1, eps: Any = 1e-12, out: Any = None) -> Tensor | None:
    """Compute `F.normalize`, if torch is right."""
    if p != 2 or out is not None or isinstance(eps, Tensor) or not _may_be_right(input):
        return None
    size = torch.linalg.vector_norm(input, 2, dim, True)
    return input / size.clamp_min(eps) if _is_right(size) else None


def _cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: Any = 1e-8) -> Tensor | None:
    """Compute `F.cosine_similarity`, if torch is right: below `eps` its derivatives are not."""
    if isinstance(eps, Tensor) or x1.dtype != x2.dtype or x1.shape != x2.shape or not _may_be_right(x1, x2):
        return None
    one, other = (torch.linalg.vector_norm(x, 2, dim, True) for x in (x1, x2))
    return ((x1 / one) * (x2 / other)).sum(dim) if _is_right(one, eps) and _is_right(other, eps) else None


QUICK: dict[Any, Quick] = {
    torch.linalg.vector_norm: _by_value(order=("ord", 1)),
    torch.linalg.norm: _by_value(order=("ord", 1), orders=(None, "fro")),
    torch.linalg.matrix_norm: _by_value(order=("ord", 1), orders=("fro",)),
    **dict.fromkeys([torch.norm, Tensor.norm], _by_parts(_norm)),
    **dict.fromkeys([torch.frobenius_norm, torch.std, Tensor.std, torch.std_mean], _by_value()),
    **dict.fromkeys([torch.dist, Tensor.dist, F.pairwise_distance], _by_value(2, order=("p", 2))),
    F.normalize: _by_parts(_normalize),
    F.cosine_similarity: _by_parts(_cosine_similarity),
}
