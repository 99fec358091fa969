"""Functions with a custom backward derivative (as `jax.custom_vjp`)."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, update_wrapper
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import (
    Packed,
    bind_positional,
    check_callable,
    check_nondiff_argnums,
    differentiable,
    instantiate_zeros,
    jvp_by_rerun,
    needs_rules,
    number_to_tensor,
    replace_at,
    save_for_rules,
    saved_primals,
    transpose_linear,
    unwrap_closed_levels,
    vjp_by_rerun,
)
from torchpure.transforms.context import collectives_used
from torchpure.transforms.engine import argument_paths, current_level, describe_function, is_variable, unaliased
from torchpure.transforms.overrides import UserCall, overriding
from torchpure.transforms.purity import refuse_hidden_tensors, run_watched

from ._captures import guard_captures, refuse_captures
from ._output_check import OutputCheck, comparison


class _ActiveCalls(threading.local):
    """The calls that are active in this thread: the function and its level."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, int]] = []

    @contextmanager
    def entered(self, fn: Any) -> Iterator[None]:
        self.calls.append((fn, current_level()))
        try:
            yield
        finally:
            self.calls.pop()


_in_forward = _ActiveCalls()  # calls whose forward rule runs: the same name means the plain function there
_residuals_unused = _ActiveCalls()  # calls whose residuals need no tangents


class custom_vjp:  # noqa: N801 a decorator
    """Give a function a custom backward derivative; its transpose is the forward derivative.

    Define the rule with `fn.defvjp(forward, backward)`. `forward(*args)` returns (value, residuals).
    `backward(residuals, cotangent)` returns a tuple with a cotangent for each argument; None stands for zero. Both
    count arguments by position, keyword arguments and defaults included. Arguments in `nondiff_argnums` may be
    anything: `backward` gets them first. `backward` may be any function of the cotangent, such as a clip; forward
    derivatives assume that it is linear.

    Law: `vjp(fn)`, `grad(fn)` and every composition use the rule; derivatives of the gradient are those of `backward`.

    Raises:
        TransformError: no rule is defined, its value is not like that of `fn`, or a cotangent is not like its argument.
        TransformError: `fn` captures a tensor that a transform tracks, or `nondiff_argnums` names no argument.
        StructureError: the value or a cotangent of the rule has another structure.

    >>> @custom_vjp
    ... def clipped(x):
    ...     return x
    >>> clipped.defvjp(lambda x: (x, None), lambda _, cotangent: (cotangent.clamp(-1, 1),))
    >>> from torchpure import grad
    >>> grad(lambda x: 5 * clipped(x))(torch.tensor(2.0))
    tensor(1.)
    """

    def __init__(self, fn: Callable[..., Any], nondiff_argnums: Sequence[int] = ()) -> None:
        check_callable("custom_vjp", fn)
        self._fn = fn
        self._static = check_nondiff_argnums("custom_vjp", nondiff_argnums)
        self._output_check = OutputCheck("custom_vjp", fn)
        self._rules: tuple[Callable[..., Any], Callable[..., Any]] | None = None
        update_wrapper(self, fn, updated=())

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        """Define the rule.

        Raises:
            TransformError: `forward` or `backward` is not a function.
        """
        check_callable("custom_vjp.defvjp: forward", forward)
        check_callable("custom_vjp.defvjp: backward", backward)
        self._rules = (forward, backward)

    def __call__(self, *args: Tree, **kwargs: Tree) -> Any:
        """Return the value of the function."""
        if self._rules is None:
            raise TransformError(f"custom_vjp: {describe_function(self._fn)} has no rule yet: define it with defvjp")
        refuse_captures("custom_vjp", self._fn, *self._rules)
        args = bind_positional("custom_vjp", self._fn, self._static, args, kwargs)
        call = _CustomVjpCall(self._fn, *self._rules, self._static, args, self._output_check)
        if not needs_rules(call.tensors) or (self._fn, current_level()) in _in_forward.calls:
            return run_watched("custom_vjp", self._fn, *args)
        call.residuals_unused_at = current_level() if (self._fn, current_level()) in _residuals_unused.calls else None
        outputs = _CustomVjp.apply(call, *call.tensors)
        refuse_hidden_tensors("custom_vjp", self._rules[0], call.outputs.others, is_variable)
        return call.outputs.unflatten(outputs[: call.num_outputs])


class _CustomVjpCall(UserCall):
    """One call of a `custom_vjp` function, with its rules."""

    def __init__(
        self,
        fn: Callable[..., Any],
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        static: Any,
        args: Any,
        output_check: OutputCheck,
    ) -> None:
        super().__init__(fn, static, args)
        self.output_check = output_check
        self.forward, self.backward = forward, backward
        self.residuals = Packed()
        self.num_outputs = 0  # number of tensors in the value
        self.residuals_unused_at: int | None = None  # the level at which residuals need no tangents

    def value_and_residuals(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value, then those of the residuals."""
        with overriding(), self.restore_env(tensors), collectives_used() as names:
            result = self.forward(*self.arguments(tensors))
        if not isinstance(result, tuple) or len(result) != 2:
            raise TransformError(
                f"custom_vjp: the rule {describe_function(self.forward)} must return (value, residuals), "
                f"got {tree.describe(result)}"
            )
        value = self.outputs.flatten(result[0], lambda: comparison("custom_vjp", self.forward, self.fn))
        self.num_outputs = len(value)
        return self.expand_recorded(names, (*value, *self.residuals.flatten(result[1])), tensors)

    def pull_back(self, tensors: Sequence[Tensor], residuals: Sequence[Tensor], cotangents: Sequence[Any]) -> list[Any]:
        """Return the cotangents of the arguments, from those of the value."""
        rule_args = (self.residuals.unflatten(residuals), self.outputs.unflatten(cotangents))
        with overriding(), self.restore_env(tensors), collectives_used() as names:
            result = self.backward(*self.static.values(), *rule_args)
        args = self.inputs.unflatten(tensors)
        if not isinstance(result, tuple) or len(result) != len(args):
            raise TransformError(
                f"custom_vjp: the rule {describe_function(self.backward)} must return a tuple of {len(args)}, a "
                f"cotangent for each argument, got {tree.describe(result)}"
            )
        all_cotangents: list[Any] = []
        for number, (part, arg) in enumerate(zip(result, args, strict=True)):
            packed = Packed()
            leaves = packed.flatten(arg)
            arg_cotangents = (
                [None] * len(leaves) if part is None else packed.match(f"custom_vjp: cotangent {number}", part)
            )
            arg_cotangents = [number_to_tensor(part, leaf) for part, leaf in zip(arg_cotangents, leaves, strict=True)]
            _check_cotangents(self.backward, arg_cotangents, leaves, argument_paths(number, arg))
            all_cotangents.extend(arg_cotangents)
        all_cotangents.extend([None] * (len(tensors) - len(all_cotangents)))  # the axis environment has none
        return list(self.expand_recorded(names, all_cotangents, tensors))


def _check_cotangents(rule: Any, in_cotangents: Sequence[Any], leaves: Sequence[Tensor], paths: list[str]) -> None:
    for part, leaf, path in zip(in_cotangents, leaves, paths, strict=False):
        if part is None or not is_variable(leaf):
            continue
        if not isinstance(part, Tensor) or part.shape != leaf.shape or part.dtype != leaf.dtype:
            raise TransformError(
                f"custom_vjp: the rule {describe_function(rule)} gave a cotangent for {path} that is "
                f"{tree.describe(part)}, wanted {tree.describe(leaf)}"
            )


class _CustomVjp(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(call: _CustomVjpCall, *tensors: Tensor) -> tuple[Tensor, ...]:
        with guard_captures("custom_vjp", call.fn, tensors), _in_forward.entered(call.fn):
            out = call.value_and_residuals(*tensors)
            value = partial(call.outputs.unflatten, out[: call.num_outputs])
            call.output_check.check(
                call.inputs.structure, lambda: call.fn(*call.arguments(tensors)), call.forward, value
            )
            return unaliased(out, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        call, *tensors = inputs
        save_for_rules(ctx, call, (*tensors, *output), output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        call, saved = ctx.call, [unwrap_closed_levels(leaf) for leaf in ctx.saved_tensors]
        cotangents = tuple(map(unwrap_closed_levels, cotangents))
        tensors, value, residuals = _split_saved(call, saved, len(saved) - len(cotangents))
        parts: list[Any] = [None] * len(tensors)
        if any(part is not None for part in cotangents[: call.num_outputs]):
            parts = call.pull_back(tensors, residuals, instantiate_zeros(value, cotangents[: call.num_outputs]))
        # an outer transform differentiates the rule
        if any(part is not None for part in cotangents[call.num_outputs :]):
            needs_grad = [True] * len(tensors)
            residual_parts = vjp_by_rerun(
                partial(_residuals_of, call), tensors, needs_grad, cotangents[call.num_outputs :]
            )
            parts = [
                two if one is None else one if two is None else one + two
                for one, two in zip(parts, residual_parts, strict=True)
            ]
        return (None, *(part if is_variable(leaf) else None for part, leaf in zip(parts, tensors, strict=True)))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        call, saved = ctx.call, saved_primals(ctx)
        tensors, value, residuals = _split_saved(call, saved, len(tangents))
        in_tangents = instantiate_zeros(tensors, tangents)
        diff_inputs = [i for i, leaf in enumerate(tensors) if is_variable(leaf)]
        diff_outputs = [i for i, leaf in enumerate(value) if is_variable(leaf)]

        def linear(*directions: Tensor) -> list[Tensor]:
            parts = call.pull_back(tensors, residuals, replace_at([None] * len(value), diff_outputs, directions))
            return [torch.zeros_like(tensors[i]) if parts[i] is None else parts[i] for i in diff_inputs]

        in_cotangents = transpose_linear(
            linear, [value[i] for i in diff_outputs], [in_tangents[i] for i in diff_inputs]
        )
        out_tangents = replace_at([None] * len(value), diff_outputs, in_cotangents)
        if call.residuals_unused_at == current_level():
            return (*out_tangents, *(torch.zeros_like(leaf) if is_variable(leaf) else None for leaf in residuals))
        return (*out_tangents, *_residual_tangents(call, tensors, residuals, in_tangents))


def _split_saved(call: _CustomVjpCall, saved: Sequence[Tensor], count: int) -> tuple[Sequence[Tensor], ...]:
    return saved[:count], saved[count : count + call.num_outputs], saved[count + call.num_outputs :]


def _residuals_of(call: _CustomVjpCall, *tensors: Tensor) -> tuple[Tensor, ...]:
    return call.value_and_residuals(*tensors)[call.num_outputs :]


def _residual_tangents(
    call: _CustomVjpCall, tensors: Sequence[Tensor], residuals: Sequence[Tensor], tangents: Sequence[Any]
) -> Sequence[Any]:
    """Return the tangents of the residuals: `forward` itself is differentiated."""
    if not any(map(is_variable, residuals)):
        return [None] * len(residuals)

    def residuals_alone(*values: Tensor) -> tuple[Tensor, ...]:
        with _residuals_unused.entered(call.fn):
            return _residuals_of(call, *values)

    return jvp_by_rerun(residuals_alone, tensors, tangents)
