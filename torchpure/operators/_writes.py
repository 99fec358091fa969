"""Operations in place, and the operations that return what they write."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

_ASSIGNMENTS = {
    "__iadd__": "add",
    "__isub__": "sub",
    "__imul__": "mul",
    "__itruediv__": "div",
    "__idiv__": "div",
    "__ipow__": "pow",
}
_NAMES = """
 add sub mul div pow tanh sin cos exp log sqrt rsqrt square reciprocal sigmoid relu abs neg clamp clamp_min clamp_max
 addmm addcmul addcdiv masked_fill erf softplus tan sinh cosh expm1 log1p lerp
"""


@cache
def _table() -> dict[Any, Callable[..., Any]]:
    pairs = [*_ASSIGNMENTS.items(), *((f"{name}_", name) for name in _NAMES.split())]
    return {
        found: getattr(torch.Tensor, pure)
        for name, pure in pairs
        for space in (torch.Tensor, torch)
        if hasattr(torch.Tensor, pure) and callable(found := getattr(space, name, None))
    }


def without_write(func: Any) -> Callable[..., Any] | None:
    """Return the operation that computes what an operation in place writes into its first operand; None for others.

    >>> without_write(torch.Tensor.tanh_) is torch.Tensor.tanh, without_write(torch.tanh)
    (True, None)
    """
    return _table().get(func)
