"""Operations whose forward derivative torch gets wrong, with one that is made of their backward derivative.

In torch 2.13 the forward rules of normalisations, solvers and determinants take what the operation has kept for itself
(means, factors) for constants: a second derivative through such a rule is silently wrong, that of `jacfwd(jacfwd(f))`
for one. The backward rules are right, at every order. J · tangent is the transpose of cotangent · J, which is linear in
the cotangent.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._arguments import is_variable
from ._levels import torch_vjp
from ._operation import Call, differentiable, fresh, primals, save, transposed, zeros_for
from ._ordinary import ordinary_backward


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


class _ByBackward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        return fresh(call.value(*tensors), tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        save(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return (None, *ordinary_backward(ctx.call.value, ctx.saved_tensors, ctx.needs_input_grad[1:], cotangents))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        return _pushed(ctx.call.value, primals(ctx), tangents)


def _pushed(run: Callable[..., Any], tensors: Sequence[Tensor], tangents: Sequence[Any]) -> tuple[Any, ...]:
    asked = [i for i, leaf in enumerate(tensors) if is_variable(leaf)]
    kinds: list[bool] = []

    def chosen(*values: Tensor) -> tuple[Tensor, ...]:
        every = list(tensors)
        for i, value in zip(asked, values, strict=True):
            every[i] = value
        out = run(*every)
        kinds[:] = map(is_variable, out)
        return tuple(leaf for leaf in out if is_variable(leaf))

    outputs, pull = torch_vjp(chosen, *(tensors[i] for i in asked))
    given = zeros_for(tensors, tangents)
    moved = iter(transposed(lambda *parts: pull(parts), outputs, [given[i] for i in asked]))
    return tuple(next(moved) if kind else None for kind in kinds)
