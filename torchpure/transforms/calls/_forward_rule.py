"""An operation with a forward rule of its own; its backward one is the transpose."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from torchpure.transforms.engine import is_variable, unaliased

from ._autograd_rules import alive, differentiable, filled, primals, save, transposed


class Ruled(Protocol):
    """A call of such an operation, on its tensors."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""

    def pushed(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        """Return their tangents, linear in those given; None stands for zero, and for what can have none."""

    def owned(self, leaves: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
        """Return cotangents of which members that meet in the call have one each."""
        return list(leaves)


class ByRule(torch.autograd.Function):
    """`ByRule.apply(call, *tensors)` is `call.value(*tensors)`, with the derivatives of `call.pushed`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: Ruled, *tensors: Tensor) -> tuple[Tensor, ...]:
        return unaliased(call.value(*tensors), tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        save(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        return tuple(ctx.call.pushed(primals(ctx), tangents))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        call, tensors = ctx.call, [alive(leaf) for leaf in ctx.saved_tensors]
        asked = [i for i, leaf in enumerate(tensors) if is_variable(leaf) and ctx.needs_input_grad[i + 1]]
        nothing: list[Any] = [None] * len(tensors)
        used = [i for i, cotangent in enumerate(cotangents) if cotangent is not None]

        def linear(*directions: Tensor) -> list[Tensor]:
            moved = call.pushed(tensors, filled(nothing, asked, directions))
            return [moved[i] for i in used]

        if not used or not asked:
            return (None, *nothing)
        found = call.owned(transposed(linear, [tensors[i] for i in asked], [cotangents[i] for i in used]), tensors)
        return (None, *filled(nothing, asked, found))
