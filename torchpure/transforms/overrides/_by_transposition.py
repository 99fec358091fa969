"""Operations whose forward derivative torch gets wrong, with one that is made of their backward derivative.

In torch 2.13 the forward rules of normalisations, solvers and determinants take what the operation has kept for itself
(means, factors) for constants: a second derivative through such a rule is silently wrong, that of `jacfwd(jacfwd(f))`
for one. The backward rules are right, at every order. J · tangent is the transpose of cotangent · J, which is linear in
the cotangent.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import (
    Call,
    Ordinary,
    among,
    differentiable,
    on_variables,
    primals,
    transposed,
    zeros_for,
)
from torchpure.transforms.engine import torch_vjp

from ._override import Override, Where


def by_backward(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation with the same values and backward derivatives, and forward ones that are made of those."""

    def run(*args: Any, **kwargs: Any) -> Any:
        call = _Call(lambda args, kwargs: operation(*args, **kwargs), (), (args, kwargs))
        return call.outputs.put(_ByBackward.apply(call, *call.tensors))

    return run


class _Call(Call):
    """A call of torch's own operation."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        return self.outputs.take(self.fn(*self.arguments(tensors)))


class _ByBackward(Ordinary):
    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        asked, run, kinds = on_variables(ctx.call.value, tensors := primals(ctx))
        outputs, pull = torch_vjp(run, *(tensors[i] for i in asked))
        given = zeros_for(tensors, tangents)
        return among(kinds, transposed(lambda *parts: pull(parts), outputs, [given[i] for i in asked]))


_OPERATIONS = (
    torch.linalg.householder_product, torch.linalg.eigh, torch.orgqr, Tensor.orgqr,
    torch.ops.aten._safe_softmax.default,
)  # fmt: skip
OVERRIDES = tuple(Override([operation], Where.FORWARD_MODE, by_backward(operation)) for operation in _OPERATIONS)
