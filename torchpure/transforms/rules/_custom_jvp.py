"""Functions with a derivative of their own, written forwards (as `jax.custom_jvp`)."""

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
    ByRule,
    alive,
    check_callable,
    check_static,
    followed,
    like_number,
    positional,
    zeros_for,
)
from torchpure.transforms.context import quiet
from torchpure.transforms.engine import describe_function, innermost, is_variable
from torchpure.transforms.overrides import UserCall, overriding
from torchpure.transforms.purity import run_watched

from ._captures import closed, refuse_captured
from ._output_check import against


class custom_jvp:  # noqa: N801 a decorator
    """Give a function a forward derivative of its own; the backward one is its transpose.

    `fn.defjvp(rule)`: `rule(primals, tangents)` returns (value, tangent of the value), and must be linear in the
    tangents. It gets all arguments by position: those that are given by name, and defaults, too. Arguments in
    `nondiff_argnums` may be anything: the rule gets them first. A tangent is None for what has none (integers); with
    `symbolic_zeros` also for arguments that nobody asks a derivative for.

    Law: `jvp(fn)`, `grad(fn)` and every composition use the rule.

    Raises:
        TransformError: no rule is defined, it does not return a tangent like the value, `fn` captures a tensor that a
            transform follows, or has no such argument.
        TransformError: or a backward pass meets a rule that is not linear in the tangents.
        StructureError: the rule returns a value or a tangent of another structure than `fn`.

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
        self._static = check_static("custom_jvp", nondiff_argnums)
        self._rule: Callable[..., Any] | None = None
        self._symbolic_zeros = False
        self._linear: set[Any] = set()  # structures of arguments for which the rule has been found to be linear
        update_wrapper(self, fn, updated=())

    def defjvp(self, rule: Callable[..., Any], symbolic_zeros: bool = False) -> Callable[..., Any]:
        """Define the rule; return it, so that this is a decorator.

        Raises:
            TransformError: it is no function.
        """
        check_callable("custom_jvp.defjvp", rule)
        self._rule, self._symbolic_zeros, self._linear = rule, symbolic_zeros, set()
        return rule

    def __call__(self, *args: Tree, **kwargs: Tree) -> Any:
        """Return the value of the function."""
        if self._rule is None:
            raise TransformError(f"custom_jvp: {describe_function(self._fn)} has no rule yet: define it with defjvp")
        refuse_captured("custom_jvp", self._fn, self._rule)
        args = positional("custom_jvp", self._fn, self._static, args, kwargs)
        call = _Call(self._fn, self._rule, self._static, args, self._symbolic_zeros, self._linear)
        if not followed(call.tensors):
            return run_watched("custom_jvp", self._fn, *args)
        return call.outputs.put(_Transposed.apply(call, *call.tensors))


class _Call(UserCall):
    """One call, and its rule."""

    def __init__(
        self,
        fn: Callable[..., Any],
        rule: Callable[..., Any],
        static: Any,
        args: Any,
        symbolic: bool,
        linear: set[Any],
    ) -> None:
        super().__init__(fn, static, args)
        self.rule, self.symbolic, self.linear = rule, symbolic, linear

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        with closed("custom_jvp", self.fn, tensors):
            return super().value(*tensors)

    def pushed(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        """Return the tangents of the value's tensors; None for integers."""
        tangents = tangents if self.symbolic else zeros_for(tensors, tangents)
        given = (self.inputs.put(tensors), self.inputs.put(tangents))
        with overriding(), self.around(tensors):
            result = self.rule(*self.static.values(), *given)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TransformError(
                f"custom_jvp: the rule {describe_function(self.rule)} must return (value, tangent), "
                f"got {tree.describe(result)}"
            )
        values = self.outputs.take(result[0], lambda: against("custom_jvp", self.rule, self.fn))
        moved = self.outputs.match(f"custom_jvp: {describe_function(self.rule)}: tangent", result[1])
        moved = [like_number(part, value) for part, value in zip(zeros_for(values, moved), values, strict=True)]
        return _checked(self.rule, values, moved, self.outputs.paths)

    def check_linear(self, tensors: Sequence[Tensor], needed: Sequence[bool]) -> None:
        """Try the rule with tangents and with −2 times these, which rounds nothing: once for a structure of arguments.

        Those that nobody needs a derivative for get none.

        Raises:
            TransformError: the rule is not linear, so that its transpose would be wrong.
        """
        key = self.inputs.structure, tuple(needed)
        if key in self.linear or any(isinstance(innermost(leaf), FakeTensor) for leaf in tensors):
            return
        tangents = [_probe(i, leaf) if is_variable(leaf) and needed[i] else None for i, leaf in enumerate(tensors)]
        with quiet(), torch.no_grad():
            once = self.pushed(tensors, tangents)
            twice = self.pushed(tensors, [None if leaf is None else -2 * leaf for leaf in tangents])
        for number, (one, two) in enumerate(zip(once, twice, strict=True)):
            if one is not None and two is not None and _apart(one, two):
                raise TransformError(
                    f"custom_jvp: the rule {describe_function(self.rule)} is not linear in the tangents, at "
                    f"`{self.outputs.paths()[number]}` of the value, so it has no transpose: let the primals alone "
                    "decide what the tangents are multiplied with, or write the backward derivative with custom_vjp"
                )
        self.linear.add(key)


def _probe(number: int, leaf: Tensor) -> Tensor:
    steps = torch.arange(leaf.numel(), device=leaf.device, dtype=torch.float32).reshape(leaf.shape)
    return torch.zeros_like(leaf) + torch.cos(1.7 * steps + number + 0.3).to(leaf.dtype)


def _apart(one: Tensor, two: Tensor) -> bool:
    """Tell whether a tangent is not −2 times another one; what is not finite tells nothing."""
    if not one.numel() or not is_variable(one):
        return False
    slack = torch.finfo(one.dtype).eps ** 0.5 * one.abs().nan_to_num(0, 0, 0).max()
    return bool(innermost((2 * one + two).abs() > slack).any())


class _Transposed(ByRule):
    """As every operation with a forward rule; that of a user is tried before it is transposed."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        ctx.call.check_linear([alive(leaf) for leaf in ctx.saved_tensors], ctx.needs_input_grad[1:])
        return ByRule.backward(ctx, *cotangents)


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
