"""Functions with a rule of their own for batches (as `jax.custom_batching.custom_vmap`)."""

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError

from ._captured import closed, refuse_captured
from ._describe import describe_function
from ._operation import Call, check_callable, differentiable, followed, fresh, primals, save
from ._ordinary import ordinary_backward, ordinary_jvp


class custom_vmap:  # noqa: N801 a decorator
    """Give a function a rule of its own for a batch; derivatives are those of the function.

    `fn.def_vmap(rule)`: `rule(size, in_batched, *args)` returns (value, out_batched). Arguments that are batched have
    their members at dimension 0; `in_batched` is a list with a tree of bools for each, `out_batched` a tree of bools
    like the value, or one bool for all of it.

    Law: `vmap(fn)` is `rule`, which must equal a loop over `fn`.

    Raises:
        TransformError: no rule is defined, it does not return a pair, or `fn` captures a tensor that a transform
            follows.

    >>> @custom_vmap
    ... def total(x):
    ...     return x.sum()
    >>> @total.def_vmap
    ... def rule(size, in_batched, x):
    ...     return x.flatten(1).sum(1), True
    >>> from torchpure import vmap
    >>> vmap(total)(torch.ones(2, 3))
    tensor([3., 3.])
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        check_callable("custom_vmap", fn)
        self._fn = fn
        self._rule: Callable[..., Any] | None = None
        update_wrapper(self, fn, updated=())

    def def_vmap(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Define the rule; return it, so that this is a decorator."""
        self._rule = rule
        return rule

    def __call__(self, *args: Tree) -> Any:
        """Return the value of the function."""
        if self._rule is None:
            raise TransformError(f"custom_vmap: {describe_function(self._fn)} has no rule yet: define it with def_vmap")
        refuse_captured("custom_vmap", self._fn, self._rule)
        call = Call(self._fn, (), args)
        if not followed(call.tensors):
            return self._fn(*args)
        return call.outputs.put(_Batched.apply(call, self._rule, *call.tensors))


class _Batched(torch.autograd.Function):
    @staticmethod
    def forward(call: Call, rule: Callable[..., Any], *tensors: Tensor) -> tuple[Tensor, ...]:
        with closed("custom_vmap", call.fn, tensors):
            return fresh(call.value(*tensors), tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        save(ctx, inputs[0], inputs[2:], output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        needed = ctx.needs_input_grad[2:]
        return (None, None, *ordinary_backward(ctx.call.value, ctx.saved_tensors, needed, cotangents))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _call: None, _rule: None, *tangents: Any) -> Any:
        return ordinary_jvp(ctx.call.value, primals(ctx), tangents)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (call, rule, *tensors), dims = args, in_dims[2:]
        given = [leaf if dim is None else leaf.movedim(dim, 0) for leaf, dim in zip(tensors, dims, strict=True)]
        batched = call.inputs.put([dim is not None for dim in dims])
        result = rule(info.batch_size, list(batched), *call.arguments(given))
        if not isinstance(result, tuple) or len(result) != 2:
            raise TransformError(
                f"custom_vmap: the rule {describe_function(rule)} must return (value, out_batched), "
                f"got {tree.describe(result)}"
            )
        out = call.outputs.take(result[0])
        marks = _marks(call, rule, result[1], len(out))
        _check_sizes(rule, out, marks, info.batch_size)
        return tuple(out), tuple(0 if mark else None for mark in marks)


def _marks(call: Call, rule: Any, batched: Any, count: int) -> Sequence[bool]:
    if isinstance(batched, bool):
        return [batched] * count
    return call.outputs.match(f"custom_vmap: {describe_function(rule)}: out_batched", batched)


def _check_sizes(rule: Any, out: Sequence[Tensor], marks: Sequence[bool], size: int) -> None:
    for leaf, mark in zip(out, marks, strict=True):
        if mark and (not leaf.ndim or leaf.shape[0] != size):
            raise TransformError(
                f"custom_vmap: the rule {describe_function(rule)} says that {tree.describe(leaf)} is batched: wanted "
                f"{size} members at dimension 0"
            )
