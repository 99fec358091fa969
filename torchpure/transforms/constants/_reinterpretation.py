"""Views of a tensor with another dtype, `x.view(torch.int32)`: the derivative of a reinterpretation of bits.

torch takes the result for a constant, even if the dtype stays the same. Here a view with the same dtype, and one of
complex numbers as pairs of real ones, has its derivative. Every other one is refused.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure.errors import TransformError
from torchpure.transforms.engine import is_differentiated, user_line


def reinterpreted(operation: Callable[..., Any], copies: bool = False) -> Callable[..., Any]:
    """Return the rule of an operation that takes a shape or a dtype; `copies` if its result shares no memory."""

    def run(self: Tensor, *shape: Any, **kwargs: Any) -> Tensor:
        given = shape[0] if shape else kwargs.get("dtype")
        if not isinstance(given, torch.dtype) or not is_differentiated(self):
            return operation(self, *shape, **kwargs)
        result = _view(self, given)
        return result.clone() if copies else result

    return run


def _view(x: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == x.dtype:
        return x.view(x.shape)
    if x.ndim and dtype == _REAL.get(x.dtype):
        return torch.view_as_real(x).flatten(-2)
    if x.ndim and _REAL.get(dtype) == x.dtype and x.shape[-1] % 2 == 0:
        return torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    raise TransformError(
        f"view({dtype}){user_line()} reads the bits of a {x.dtype} tensor that is differentiated, which has no "
        "derivative. To convert numbers use x.to(dtype); if a constant is meant, use tp.stop_gradient(x) first"
    )


_REAL = {torch.complex128: torch.float64, torch.complex64: torch.float32, torch.complex32: torch.float16}
