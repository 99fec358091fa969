"""Operations with a wrong forward derivative in torch; here it is the transpose of the backward derivative.

In torch 2.13 some forward rules take saved intermediate values (factors, for example) for constants. A second
derivative through such a rule, as in `jacfwd(jacfwd(f))`, is silently wrong. The backward rules are right at every
order. The map cotangent ↦ cotangent · J is linear, and J · tangent is its transpose.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import (
    Call,
    Rerun,
    differentiable,
    insert_nones,
    instantiate_zeros,
    restrict_to_variables,
    saved_primals,
    transpose_linear,
)
from torchpure.transforms.engine import torch_vjp

from ._override import Override, Where


def by_backward(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation with the same values and backward derivatives, whose forward derivatives come from those."""

    def run(*args: Any, **kwargs: Any) -> Any:
        call = _TorchCall(lambda args, kwargs: operation(*args, **kwargs), (), (args, kwargs))
        return call.outputs.unflatten(_ByBackward.apply(call, *call.tensors))

    return run


class _TorchCall(Call):
    """A call of torch's own operation, with the override mode off."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        return self.outputs.flatten(self.fn(*self.arguments(tensors)))


class _ByBackward(Rerun):
    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        asked, run, kinds = restrict_to_variables(ctx.call.value, tensors := saved_primals(ctx))
        outputs, pull = torch_vjp(run, *(tensors[i] for i in asked))
        given = instantiate_zeros(tensors, tangents)
        return insert_nones(kinds, transpose_linear(lambda *parts: pull(parts), outputs, [given[i] for i in asked]))


_safe_softmax = torch.ops.aten._safe_softmax.default
OVERRIDES = (Override([_safe_softmax], Where.FORWARD_MODE, by_backward(_safe_softmax)),)
