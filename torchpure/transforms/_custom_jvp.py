"""Functions with a derivative of their own, written forwards (as `jax.custom_jvp`)."""

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import StructureError, TransformError

from ._arguments import is_variable
from ._captured import closed, refuse_captured
from ._describe import describe_function
from ._operation import Call, differentiable, followed, fresh, primals, save, transposed, zeros_for


class custom_jvp:  # noqa: N801 a decorator
    """Give a function a forward derivative of its own; the backward one is its transpose.

    `fn.defjvp(rule)`: `rule(primals, tangents)` returns (value, tangent of the value), and must be linear in the
    tangents. Arguments in `nondiff_argnums` may be anything: the rule gets them first. A tangent is None for what has
    none (integers); with `symbolic_zeros` also for arguments that nobody asks a derivative for.

    Law: `jvp(fn)`, `grad(fn)` and every composition use the rule.

    Raises:
        TransformError: no rule is defined, it does not return a tangent like the value, or `fn` captures a tensor that
            a transform follows.

    >>> @custom_jvp
    ... def safe_sqrt(x):
    ...     return torch.sqrt(x)
    >>> @safe_sqrt.defjvp
    ... def rule(primals, tangents):
    ...     root = safe_sqrt(primals[0])
    ...     return root, tangents[0] * torch.where(root == 0, 0.0, 0.5 / root)
    >>> from torchpure import grad, vmap
    >>> vmap(grad(safe_sqrt))(torch.tensor([0.0, 4.0]))
    tensor([0.0000, 0.2500])
    """

    def __init__(self, fn: Callable[..., Any], nondiff_argnums: Sequence[int] = ()) -> None:
        self._fn = fn
        self._static = tuple(nondiff_argnums)
        self._rule: Callable[..., Any] | None = None
        self._symbolic_zeros = False
        update_wrapper(self, fn, updated=())

    def defjvp(self, rule: Callable[..., Any], symbolic_zeros: bool = False) -> Callable[..., Any]:
        """Define the rule; return it, so that this is a decorator."""
        self._rule, self._symbolic_zeros = rule, symbolic_zeros
        return rule

    def __call__(self, *args: Tree) -> Any:
        """Return the value of the function."""
        if self._rule is None:
            raise TransformError(f"custom_jvp: {describe_function(self._fn)} has no rule yet: define it with defjvp")
        refuse_captured("custom_jvp", self._fn, self._rule)
        call = _Call(self._fn, self._rule, self._static, args, self._symbolic_zeros)
        if not followed(call.tensors):
            return self._fn(*args)
        return call.outputs.put(_Forward.apply(call, *call.tensors))


class _Call(Call):
    """One call, and its rule."""

    def __init__(
        self, fn: Callable[..., Any], rule: Callable[..., Any], static: Any, args: Any, symbolic: bool
    ) -> None:
        super().__init__(fn, static, args)
        self.rule, self.symbolic = rule, symbolic

    def pushed(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        """Return the tangents of the value's tensors; None for integers."""
        tangents = tangents if self.symbolic else zeros_for(tensors, tangents)
        given = (self.inputs.put(tensors), self.inputs.put(tangents))
        result = self.rule(*self.static.values(), *given)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TransformError(
                f"custom_jvp: the rule {describe_function(self.rule)} must return (value, tangent), "
                f"got {tree.describe(result)}"
            )
        values = self.outputs.take(result[0])
        moved = self.outputs.match(f"custom_jvp: {describe_function(self.rule)}: tangent", result[1])
        return _checked(self.rule, values, zeros_for(values, moved), self.outputs.paths)


def _checked(rule: Any, values: Sequence[Tensor], moved: list[Any], paths: Callable[[], list[str]]) -> list[Any]:
    for i, (value, tangent) in enumerate(zip(values, moved, strict=True)):
        if not isinstance(tangent, Tensor | None):
            raise StructureError(
                f"custom_jvp: {describe_function(rule)}: tangent: trees differ at `{paths()[i]}`: wanted "
                f"{tree.describe(value)}, got {tree.describe(tangent)}"
            )
        if (
            tangent is not None
            and is_variable(value)
            and (value.shape != tangent.shape or value.dtype != tangent.dtype)
        ):
            raise TransformError(
                f"custom_jvp: the rule {describe_function(rule)} gave a tangent at `{paths()[i]}` that is "
                f"{tree.describe(tangent)}, wanted {tree.describe(value)}"
            )
    return moved


class _Forward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        with closed("custom_jvp", call.fn, tensors):
            return fresh(call.value(*tensors), tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        save(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        return tuple(ctx.call.pushed(primals(ctx), tangents))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        call, tensors = ctx.call, ctx.saved_tensors
        asked = [i for i, leaf in enumerate(tensors) if is_variable(leaf) and ctx.needs_input_grad[i + 1]]
        used = [i for i, cotangent in enumerate(cotangents) if cotangent is not None]

        def linear(*directions: Tensor) -> list[Tensor]:
            tangents: list[Any] = [None] * len(tensors)
            for i, direction in zip(asked, directions, strict=True):
                tangents[i] = direction
            moved = call.pushed(tensors, tangents)
            return [moved[i] for i in used]

        parts: list[Any] = [None] * len(tensors)
        if used and asked:
            found = transposed(linear, [tensors[i] for i in asked], [cotangents[i] for i in used])
            for i, part in zip(asked, found, strict=True):
                parts[i] = part
        return (None, *parts)
