"""Handlers of a few composite operations, each as one formula. Training steps then need no decomposition."""

from typing import Any

import torch
from torch.fx import Node

from torchpure.jit.native.ir import KernelBuilder, UnsupportedError, Value, View

from ._pointwise import pointwise
from ._reductions import reduce_dims
from ._scope import Scope, cast, fake_value, handles, operation_name

_FORMULAS = {
    "lerp": "{2} < 0.5 ? {0} + {2} * ({1} - {0}) : {1} - ({1} - {0}) * (1 - {2})",
    "tanh_backward": "{0} * (1 - {1} * {1})",
    "sigmoid_backward": "{0} * ((1 - {1}) * {1})",
    "threshold_backward": "{1} <= {2} ? 0 : {0}",
    "addcmul": "{0} + {3} * {1} * {2}",
    "addcdiv": "{0} + {3} * {1} / {2}",
}


def _apply_formula(scope: Scope, shape: Any, dtype: torch.dtype, text: str, args: list[Any]) -> View:
    def compute(build: KernelBuilder, loaded: list[tuple[str, torch.dtype]]) -> str:
        return build.compute(dtype, text, *(cast(build, name, old, dtype) for name, old in loaded))

    return pointwise(scope, shape, dtype, args, compute)


@handles(*_FORMULAS)
def _formula(scope: Scope, node: Node, *args: Any, value: Any = 1) -> View:
    out, name = fake_value(node), operation_name(node)
    if not out.dtype.is_floating_point:
        raise UnsupportedError(f"{name} of integers")
    given = [*args, value] if name in {"addcmul", "addcdiv"} else list(args)
    return _apply_formula(scope, out.shape, out.dtype, _FORMULAS[name], given)


@handles("mse_loss")
def _mse_loss(scope: Scope, node: Node, x: Value, y: Value, reduction: int = 1) -> View:
    out = fake_value(node)
    shape = torch.broadcast_shapes(x.shape, y.shape)
    square = _apply_formula(scope, shape, out.dtype, "({0} - {1}) * ({0} - {1})", [x, y])
    if not reduction:
        return square
    after = f"{{0}} / {torch.Size(shape).numel()}" if reduction == 1 else "{0}"
    if 0 in shape:
        raise UnsupportedError("a mean over an empty tensor")
    return reduce_dims(scope, "sum", square, list(range(len(shape))), out, out.dtype, after)


@handles("mse_loss_backward")
def _mse_loss_backward(scope: Scope, node: Node, g: Value, x: Value, y: Value, reduction: int = 1) -> View:
    out = fake_value(node)
    scale = 2.0 / out.numel() if reduction == 1 and out.numel() else 2.0
    return _apply_formula(scope, out.shape, out.dtype, "{3} * ({1} - {2}) * {0}", [g, x, y, scale])
