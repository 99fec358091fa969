"""Functions with a derivative of their own, written backwards (as `jax.custom_vjp`)."""

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
    check_callable,
    check_static,
    differentiable,
    filled,
    followed,
    like_number,
    positional,
    primals,
    pulled_through,
    pushed_through,
    save,
    transposed,
    zeros_for,
)
from torchpure.transforms.context import meetings
from torchpure.transforms.engine import argument_paths, current_level, describe_function, is_variable, unaliased
from torchpure.transforms.overrides import UserCall, overriding
from torchpure.transforms.purity import run_watched

from ._captures import closed, refuse_captured
from ._output_check import Promise, against


class _Running(threading.local):
    """The functions whose first part runs in this thread, and at which level."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, int]] = []

    @contextmanager
    def one(self, fn: Any) -> Iterator[None]:
        self.calls.append((fn, current_level()))
        try:
            yield
        finally:
            self.calls.pop()


_running = _Running()  # as an operation: there the name stands for the plain function
_valued = _Running()  # for the tangents of residuals: there a call of the same name needs none for its own


class custom_vjp:  # noqa: N801 a decorator
    """Give a function a backward derivative of its own; the forward one is its transpose.

    `fn.defvjp(forward, backward)`: `forward(*args)` returns (value, residuals), and `backward(residuals, cotangent)` a
    tuple with a cotangent for each argument, None for zero; both count all arguments by position: those that are given
    by name, and defaults, too. Arguments in `nondiff_argnums` may be anything: `backward` gets them first. It may be
    any function of the cotangent (clip it, say); forward derivatives take it as linear.

    Law: `vjp(fn)`, `grad(fn)` and every composition use the rule; derivatives of the gradient are those of `backward`.

    Raises:
        TransformError: no rule is defined, it does not return a value like that of `fn` or a cotangent like each
            argument, or `fn` captures a tensor that a transform follows, or has no such argument.
        StructureError: the rule returns a value or a cotangent of another structure.

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
        self._static = check_static("custom_vjp", nondiff_argnums)
        self._promise = Promise("custom_vjp", fn)
        self._rules: tuple[Callable[..., Any], Callable[..., Any]] | None = None
        update_wrapper(self, fn, updated=())

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        """Define the rule.

        Raises:
            TransformError: a part of it is no function.
        """
        check_callable("custom_vjp.defvjp: forward", forward)
        check_callable("custom_vjp.defvjp: backward", backward)
        self._rules = (forward, backward)

    def __call__(self, *args: Tree, **kwargs: Tree) -> Any:
        """Return the value of the function."""
        if self._rules is None:
            raise TransformError(f"custom_vjp: {describe_function(self._fn)} has no rule yet: define it with defvjp")
        refuse_captured("custom_vjp", self._fn, *self._rules)
        args = positional("custom_vjp", self._fn, self._static, args, kwargs)
        call = _Call(self._fn, *self._rules, self._static, args, self._promise)
        if not followed(call.tensors) or (self._fn, current_level()) in _running.calls:
            return run_watched("custom_vjp", self._fn, *args)
        call.valued_at = current_level() if (self._fn, current_level()) in _valued.calls else None
        outputs = _Backward.apply(call, *call.tensors)
        return call.outputs.put(outputs[: call.size])


class _Call(UserCall):
    """One call, and its rules."""

    def __init__(
        self,
        fn: Callable[..., Any],
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        static: Any,
        args: Any,
        promise: Promise,
    ) -> None:
        super().__init__(fn, static, args)
        self.promise = promise
        self.forward, self.backward = forward, backward
        self.residuals = Packed()
        self.size = 0  # tensors of the value
        self.valued_at: int | None = None  # the level at which nobody asks for the residuals

    def value_and_residuals(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value, then those of the residuals."""
        with overriding(), self.around(tensors), meetings() as names:
            result = self.forward(*self.arguments(tensors))
        if not isinstance(result, tuple) or len(result) != 2:
            raise TransformError(
                f"custom_vjp: the rule {describe_function(self.forward)} must return (value, residuals), "
                f"got {tree.describe(result)}"
            )
        value = self.outputs.take(result[0], lambda: against("custom_vjp", self.forward, self.fn))
        self.size = len(value)
        return self.shared_out(names, (*value, *self.residuals.take(result[1])), tensors)

    def pulled(self, tensors: Sequence[Tensor], kept: Sequence[Tensor], cotangents: Sequence[Any]) -> list[Any]:
        """Return the cotangents of the arguments' tensors."""
        given = (self.residuals.put(kept), self.outputs.put(cotangents))
        with overriding(), self.around(tensors), meetings() as names:
            result = self.backward(*self.static.values(), *given)
        wanted = self.inputs.put(tensors)
        if not isinstance(result, tuple) or len(result) != len(wanted):
            raise TransformError(
                f"custom_vjp: the rule {describe_function(self.backward)} must return a tuple of {len(wanted)}, a "
                f"cotangent for each argument, got {tree.describe(result)}"
            )
        column: list[Any] = []
        for number, (part, like) in enumerate(zip(result, wanted, strict=True)):
            one = Packed()
            leaves = one.take(like)
            found = [None] * len(leaves) if part is None else one.match(f"custom_vjp: cotangent {number}", part)
            found = [like_number(part, leaf) for part, leaf in zip(found, leaves, strict=True)]
            _check(self.backward, found, leaves, argument_paths(number, like))
            column.extend(found)
        column.extend([None] * (len(tensors) - len(column)))  # what is around has none
        return list(self.shared_out(names, column, tensors))


def _check(rule: Any, found: Sequence[Any], leaves: Sequence[Tensor], paths: list[str]) -> None:
    for part, leaf, path in zip(found, leaves, paths, strict=False):
        if part is None or not is_variable(leaf):
            continue
        if not isinstance(part, Tensor) or part.shape != leaf.shape or part.dtype != leaf.dtype:
            raise TransformError(
                f"custom_vjp: the rule {describe_function(rule)} gave a cotangent for {path} that is "
                f"{tree.describe(part)}, wanted {tree.describe(leaf)}"
            )


class _Backward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        with closed("custom_vjp", call.fn, tensors), _running.one(call.fn):
            out = call.value_and_residuals(*tensors)
            value = partial(call.outputs.put, out[: call.size])
            call.promise.check(call.inputs.structure, lambda: call.fn(*call.arguments(tensors)), call.forward, value)
            return unaliased(out, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        call, *tensors = inputs
        save(ctx, call, (*tensors, *output), output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        call, saved = ctx.call, ctx.saved_tensors
        tensors, value, kept = _split(call, saved, len(saved) - len(cotangents))
        parts: list[Any] = [None] * len(tensors)
        if any(part is not None for part in cotangents[: call.size]):
            parts = call.pulled(tensors, kept, zeros_for(value, cotangents[: call.size]))
        if any(part is not None for part in cotangents[call.size :]):  # a transform further out differentiates the rule
            needed = [True] * len(tensors)
            others = pulled_through(partial(_residuals, call), tensors, needed, cotangents[call.size :])
            parts = [
                two if one is None else one if two is None else one + two
                for one, two in zip(parts, others, strict=True)
            ]
        return (None, *(part if is_variable(leaf) else None for part, leaf in zip(parts, tensors, strict=True)))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        call, saved = ctx.call, primals(ctx)
        tensors, value, kept = _split(call, saved, len(tangents))
        given = zeros_for(tensors, tangents)
        asked = [i for i, leaf in enumerate(tensors) if is_variable(leaf)]
        outs = [i for i, leaf in enumerate(value) if is_variable(leaf)]

        def linear(*directions: Tensor) -> list[Tensor]:
            parts = call.pulled(tensors, kept, filled([None] * len(value), outs, directions))
            return [torch.zeros_like(tensors[i]) if parts[i] is None else parts[i] for i in asked]

        found = transposed(linear, [value[i] for i in outs], [given[i] for i in asked])
        moved = filled([None] * len(value), outs, found)
        if call.valued_at == current_level():
            return (*moved, *(torch.zeros_like(leaf) if is_variable(leaf) else None for leaf in kept))
        return (*moved, *_moved_residuals(call, tensors, kept, given))


def _split(call: _Call, saved: Sequence[Tensor], count: int) -> tuple[Sequence[Tensor], ...]:
    return saved[:count], saved[count : count + call.size], saved[count + call.size :]


def _residuals(call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
    return call.value_and_residuals(*tensors)[call.size :]


def _moved_residuals(
    call: _Call, tensors: Sequence[Tensor], kept: Sequence[Tensor], tangents: Sequence[Any]
) -> Sequence[Any]:
    """Push tangents forward to the residuals, by the ordinary derivative of the rule's first part."""
    if not any(map(is_variable, kept)):
        return [None] * len(kept)

    def alone(*values: Tensor) -> tuple[Tensor, ...]:
        with _valued.one(call.fn):
            return _residuals(call, *values)

    return pushed_through(alone, tensors, tangents)
