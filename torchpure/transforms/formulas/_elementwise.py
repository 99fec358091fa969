"""Elementwise functions with given derivatives, and constants with the derivatives of a formula."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchpure.errors import TransformError
from torchpure.transforms.calls import differentiable, saved_primals, unwrap_closed_levels
from torchpure.transforms.engine import nothing_is_recorded

from ._safe_product import safe_product


@dataclass(frozen=True, slots=True)
class Elementwise:
    """A function of tensors of one dtype, whose shapes broadcast.

    `partials` has a function for each argument: the partial derivative, itself a function with right derivatives. A
    function of complex numbers is holomorphic. None
    stands for an argument in which the derivative is not known: it is refused.
    """

    name: str
    value: Callable[..., Tensor]
    partials: tuple[Callable[..., Tensor] | None, ...]

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Return the value, with the given derivatives.

        Raises:
            TransformError: a derivative in an argument is asked for that is not known.
        """
        tensors = tuple(torch.broadcast_tensors(*tensors))
        return self.value(*tensors) if nothing_is_recorded() else _Apply.apply(self, *tensors)

    def partial(self, i: int, tensors: Any) -> Tensor:
        """Return the derivative in argument `i`."""
        run = self.partials[i]
        if run is None:
            raise TransformError(
                f"{self.name} has no derivative in argument {i}: use tp.stop_gradient on it, if it is a constant"
            )
        return run(*tensors)


class _Apply(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(function: Elementwise, *tensors: Tensor) -> Tensor:
        return function.value(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.function = inputs[0]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        tensors = [unwrap_closed_levels(leaf) for leaf in ctx.saved_tensors]
        if cotangents[0] is None:
            return (None,) * (1 + len(tensors))
        return None, *(
            safe_product(cotangents[0], ctx.function.partial(i, tensors).conj()) if needs else None
            for i, needs in enumerate(ctx.needs_input_grad[1:])
        )

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        tensors = saved_primals(ctx)
        moved = [
            safe_product(tangent, ctx.function.partial(i, tensors))
            for i, tangent in enumerate(tangents)
            if tangent is not None
        ]
        return moved[0] if len(moved) == 1 else torch.stack(moved).sum(0)


def with_value(followed: Tensor, value: Tensor) -> Tensor:
    """Return a constant with the derivatives of `followed`, a tensor that equals it up to rounding."""
    finite = followed.detach().isfinite()  # inf - inf is NaN
    return torch.where(finite, value + (followed - followed.detach()), followed)
