"""Functions with a custom forward derivative (as `jax.custom_jvp`)."""

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._torch import FakeTensor
from torchpure._types import Tree
from torchpure.errors import StructureError, TransformError
from torchpure.transforms.calls import (
    ForwardRule,
    bind_positional,
    check_callable,
    check_nondiff_argnums,
    instantiate_zeros,
    needs_rules,
    number_to_tensor,
    unwrap_closed_levels,
)
from torchpure.transforms.context import suppress_callbacks
from torchpure.transforms.engine import describe_function, innermost, is_variable
from torchpure.transforms.overrides import UserCall, overriding
from torchpure.transforms.purity import refuse_hidden_tensors, run_watched

from ._captures import guard_captures, refuse_captures
from ._output_check import comparison


class custom_jvp:  # noqa: N801 a decorator
    """Give a function a custom forward derivative; its transpose is the backward derivative.

    Define the rule with `fn.defjvp(rule)`. `rule(primals, tangents)` returns (value, tangent of the value), and must be
    linear in the tangents. It gets all arguments by position, keyword arguments and defaults included. Arguments in
    `nondiff_argnums` may be anything: the rule gets them first. The tangent of an integer tensor is None. With
    `symbolic_zeros`, the tangent of an argument that is not differentiated is None too.

    Law: `jvp(fn)`, `grad(fn)` and every composition use the rule.

    Raises:
        TransformError: no rule is defined, or it does not return a tangent like the value.
        TransformError: `fn` captures a tensor that a transform tracks, or `nondiff_argnums` names no argument.
        TransformError: a backward pass meets a rule that is not linear in the tangents.
        StructureError: the value or the tangent of the rule has another structure than the value of `fn`.

    >>> import torch
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
        check_callable("custom_jvp", fn)
        self._fn = fn
        self._static = check_nondiff_argnums("custom_jvp", nondiff_argnums)
        self._rule: Callable[..., Any] | None = None
        self._symbolic_zeros = False
        self._known_linear: set[Any] = set()  # structures of arguments for which the rule is linear
        update_wrapper(self, fn, updated=())

    def defjvp(self, rule: Callable[..., Any], symbolic_zeros: bool = False) -> Callable[..., Any]:
        """Define the rule and return it, so that this works as a decorator.

        Raises:
            TransformError: the rule is not a function.
        """
        check_callable("custom_jvp.defjvp", rule)
        self._rule, self._symbolic_zeros, self._known_linear = rule, symbolic_zeros, set()
        return rule

    def __call__(self, *args: Tree, **kwargs: Tree) -> Any:
        """Return the value of the function."""
        if self._rule is None:
            raise TransformError(f"custom_jvp: {describe_function(self._fn)} has no rule yet: define it with defjvp")
        refuse_captures("custom_jvp", self._fn, self._rule)
        args = bind_positional("custom_jvp", self._fn, self._static, args, kwargs)
        call = _CustomJvpCall(self._fn, self._rule, self._static, args, self._symbolic_zeros, self._known_linear)
        if not needs_rules(call.tensors):
            return run_watched("custom_jvp", self._fn, *args)
        outputs = _CheckedForwardRule.apply(call, *call.tensors)
        refuse_hidden_tensors("custom_jvp", self._fn, call.outputs.others, is_variable)
        return call.outputs.unflatten(outputs)


class _CustomJvpCall(UserCall):
    """One call of a `custom_jvp` function, with its rule."""

    def __init__(
        self,
        fn: Callable[..., Any],
        rule: Callable[..., Any],
        static: Any,
        args: Any,
        symbolic_zeros: bool,
        known_linear: set[Any],
    ) -> None:
        super().__init__(fn, static, args)
        self.rule, self.symbolic_zeros, self.known_linear = rule, symbolic_zeros, known_linear

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        with guard_captures("custom_jvp", self.fn, tensors):
            return super().value(*tensors)

    def push_forward(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        """Return the tangents of the value; None for integers."""
        tangents = tangents if self.symbolic_zeros else instantiate_zeros(tensors, tangents)
        inputs = (self.inputs.unflatten(tensors), self.inputs.unflatten(tangents))
        with overriding(), self.restore_env(tensors):
            result = self.rule(*self.static.values(), *inputs)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TransformError(
                f"custom_jvp: the rule {describe_function(self.rule)} must return (value, tangent), "
                f"got {tree.describe(result)}"
            )
        values = self.outputs.flatten(result[0], lambda: comparison("custom_jvp", self.rule, self.fn))
        out_tangents = self.outputs.match(f"custom_jvp: {describe_function(self.rule)}: tangent", result[1])
        out_tangents = [
            number_to_tensor(tangent, value)
            for tangent, value in zip(instantiate_zeros(values, out_tangents), values, strict=True)
        ]
        return _check_tangents(self.rule, values, out_tangents, self.outputs.paths)

    def check_linear(self, tensors: Sequence[Tensor], needs_grad: Sequence[bool]) -> None:
        """Compare the rule at some tangents with the rule at −2 times these: a factor of two rounds nothing.

        The check runs once for each structure of the arguments. Inputs that need no gradient get no tangent.

        Raises:
            TransformError: the rule is not linear, so its transpose would be wrong.
        """
        key = self.inputs.structure, tuple(needs_grad)
        if key in self.known_linear or any(isinstance(innermost(leaf), FakeTensor) for leaf in tensors):
            return
        tangents = [
            _test_tangent(i, leaf) if is_variable(leaf) and needs_grad[i] else None for i, leaf in enumerate(tensors)
        ]
        with suppress_callbacks(), torch.no_grad():
            once = self.push_forward(tensors, tangents)
            twice = self.push_forward(tensors, [None if leaf is None else -2 * leaf for leaf in tangents])
        for number, (one, two) in enumerate(zip(once, twice, strict=True)):
            if one is not None and two is not None and _not_scaled(one, two):
                raise TransformError(
                    f"custom_jvp: the rule {describe_function(self.rule)} is not linear in the tangents, at "
                    f"`{self.outputs.paths()[number]}` of the value, so it has no transpose: multiply the "
                    "tangents by values of the primals only, or write the backward derivative with custom_vjp"
                )
        self.known_linear.add(key)


def _test_tangent(number: int, leaf: Tensor) -> Tensor:
    steps = torch.arange(leaf.numel(), device=leaf.device, dtype=torch.float32).reshape(leaf.shape)
    return torch.zeros_like(leaf) + torch.cos(1.7 * steps + number + 0.3).to(leaf.dtype)


def _not_scaled(one: Tensor, two: Tensor) -> bool:
    """Tell whether `two` is not −2 times `one`; entries that are not finite are ignored."""
    if not one.numel() or not is_variable(one):
        return False
    tolerance = torch.finfo(one.dtype).eps ** 0.5 * one.abs().nan_to_num(0, 0, 0).max()
    return bool(innermost((2 * one + two).abs() > tolerance).any())


class _CheckedForwardRule(ForwardRule):
    """A forward rule of a user, which is checked for linearity before it is transposed."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        ctx.call.check_linear([unwrap_closed_levels(leaf) for leaf in ctx.saved_tensors], ctx.needs_input_grad[1:])
        return ForwardRule.backward(ctx, *cotangents)


def _check_tangents(
    rule: Any, values: Sequence[Tensor], out_tangents: list[Any], paths: Callable[[], list[str]]
) -> list[Any]:
    for i, (value, tangent) in enumerate(zip(values, out_tangents, strict=True)):
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
    return out_tangents
