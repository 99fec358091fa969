"""Build elementwise kernels: what most handlers of elementwise operations call."""

from collections.abc import Sequence
from typing import Any

import torch

from torchpure.jit.native.ir import Number, Value, View, memory_order

from ._scope import Scope


def as_value(arg: Any, dtype: torch.dtype) -> Value:
    """Turn a Python number into a `Number`. Return other values unchanged."""
    return arg if isinstance(arg, View | Number) else Number(arg, (), dtype)


def pointwise(scope: Scope, shape: Sequence[int], dtype: torch.dtype, args: Sequence[Any], compute: Any) -> View:
    """Append a kernel that computes each element from those of its arguments, by `compute(build, [(name, dtype)])`."""
    build = scope.new_kernel(shape)
    values = [as_value(arg, _scalar_dtype(arg, dtype)) for arg in args]
    loaded = [(build.load(value, shape), value.dtype) for value in values]
    result = compute(build, loaded)
    out = scope.empty(shape, dtype, _result_order(values, shape))
    build.store(out, result)
    scope.append_kernel(build)
    return out


def _scalar_dtype(arg: Any, dtype: torch.dtype) -> torch.dtype:
    if isinstance(arg, bool):
        return torch.bool
    if isinstance(arg, int):
        return torch.int64
    return dtype if dtype.is_floating_point else torch.float64


def _result_order(values: Sequence[Value], shape: Sequence[int]) -> list[int] | None:
    """Return the memory order of the first argument with the result's shape; None if there is none."""
    for value in values:
        if isinstance(value, View) and tuple(value.shape) == tuple(shape):
            long = [stride for size, stride in zip(value.shape, value.strides, strict=True) if size > 1]
            if 0 not in long and len(set(long)) == len(long):
                return memory_order(value)
    return None
