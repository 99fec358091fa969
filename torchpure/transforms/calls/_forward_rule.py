"""An operation with a given forward rule; its backward rule is the transpose."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from torchpure.transforms.engine import is_variable, unaliased

from ._autograd_rules import (
    differentiable,
    replace_at,
    save_for_rules,
    saved_primals,
    transpose_linear,
    unwrap_closed_levels,
)


class ForwardRuleCall(Protocol):
    """A call of such an operation."""

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""

    def push_forward(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        """Return the tangents of the value, linear in the given ones; None stands for zero."""

    def expand_over_collectives(self, leaves: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
        """Return cotangents with a copy for each member, over axes on which the call uses collectives."""
        return list(leaves)


class ForwardRule(torch.autograd.Function):
    """`ForwardRule.apply(call, *tensors)` is `call.value(*tensors)`, with the derivatives of `call.push_forward`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: ForwardRuleCall, *tensors: Tensor) -> tuple[Tensor, ...]:
        return unaliased(call.value(*tensors), tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        save_for_rules(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        return tuple(ctx.call.push_forward(saved_primals(ctx), tangents))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        call, tensors = ctx.call, [unwrap_closed_levels(leaf) for leaf in ctx.saved_tensors]
        diff_inputs = [i for i, leaf in enumerate(tensors) if is_variable(leaf) and ctx.needs_input_grad[i + 1]]
        nones: list[Any] = [None] * len(tensors)
        used_outputs = [i for i, cotangent in enumerate(cotangents) if cotangent is not None]

        def linear(*directions: Tensor) -> list[Tensor]:
            out_tangents = call.push_forward(tensors, replace_at(nones, diff_inputs, directions))
            return [out_tangents[i] for i in used_outputs]

        if not used_outputs or not diff_inputs:
            return (None, *nones)
        in_cotangents = call.expand_over_collectives(
            transpose_linear(linear, [tensors[i] for i in diff_inputs], [cotangents[i] for i in used_outputs]), tensors
        )
        return (None, *replace_at(nones, diff_inputs, in_cotangents))
