"""Functions with a derivative of their own, written forwards (as `jax.custom_jvp`)."""

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import StructureError, TransformError

from ._arguments import is_variable
from ._by_rule import ByRule
from ._captured import closed, refuse_captured
from ._describe import describe_function
from ._operation import Call, check_callable, followed, zeros_for
from ._replacing import replacing
from ._watch import run_watched


class custom_jvp:  # noqa: N801 a decorator
    """Give a function a forward derivative of its own; the backward one is its transpose.

    `fn.defjvp(rule)`: `rule(primals, tangents)` returns (value, tangent of the value), and must be linear in the
    tangents. Arguments in `nondiff_argnums` may be anything: the rule gets them first. A tangent is None for what has
    none (integers); with `symbolic_zeros` also for arguments that nobody asks a derivative for.

    Law: `jvp(fn)`, `grad(fn)` and every composition use the rule.

    Raises:
        TransformError: no rule is defined, it does not return a tangent like the value, or `fn` captures a tensor that
            a transform follows.

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
            return run_watched("custom_jvp", self._fn, *args)
        return call.outputs.put(ByRule.apply(call, *call.tensors))


class _Call(Call):
    """One call, and its rule."""

    def __init__(
        self, fn: Callable[..., Any], rule: Callable[..., Any], static: Any, args: Any, symbolic: bool
    ) -> None:
        super().__init__(fn, static, args)
        self.rule, self.symbolic = rule, symbolic

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        with closed("custom_jvp", self.fn, tensors):
            return super().value(*tensors)

    def pushed(self, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> list[Any]:
        """Return the tangents of the value's tensors; None for integers."""
        tangents = tangents if self.symbolic else zeros_for(tensors, tangents)
        given = (self.inputs.put(tensors), self.inputs.put(tangents))
        with replacing():
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
