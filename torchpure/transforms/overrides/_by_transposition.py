"""Operations whose forward derivative torch gets wrong, with one that is made of their backward derivative.

In torch 2.13 the forward rules of normalisations, solvers and determinants take what the operation has kept for itself
(means, factors) for constants: a second derivative through such a rule is silently wrong, that of `jacfwd(jacfwd(f))`
for one. The backward rules are right, at every order. J · tangent is the transpose of cotangent · J, which is linear in
the cotangent.
"""

from collections.abc import Callable
from typing import Any

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


def by_backward(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation with the same values and backward derivatives, and forward ones that are made of those."""

    def run(*args: Any, **kwargs: Any) -> Any:
        call = _TorchCall(lambda args, kwargs: operation(*args, **kwargs), (), (args, kwargs))
        return call.outputs.unflatten(_ByBackward.apply(call, *call.tensors))

    return run


class _TorchCall(Call):
    """A call of torch's own operation."""

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
