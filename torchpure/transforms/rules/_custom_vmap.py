"""Functions with a rule of their own for batches (as `jax.custom_batching.custom_vmap`)."""

from collections.abc import Callable, Iterable, Sequence
from functools import update_wrapper
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import Call, Ordinary, check_callable, followed, positional
from torchpure.transforms.engine import describe_function
from torchpure.transforms.overrides import UserCall, overriding
from torchpure.transforms.purity import run_watched

from ._captures import closed, refuse_captured
from ._output_check import Promise, against


class custom_vmap:  # noqa: N801 a decorator
    """Give a function a rule of its own for a batch.

    `fn.def_vmap(rule)`: `rule(size, in_batched, *args)` returns (value, out_batched). Arguments that are batched have
    their members at dimension 0; `in_batched` is a list with a tree of bools for each, `out_batched` a tree of bools
    like the value, or one bool for all of it.

    A derivative around the `vmap`, `grad` of `vmap(fn)`, is that of the rule. One inside, `vmap(grad(fn))`, is that of
    `fn`, mapped by torch: only the value is by the rule, where JAX differentiates the rule there too. So `fn` must be
    one that `vmap` can map if its derivatives are.

    Law: `vmap(fn)` is `rule`, which must equal a loop over `fn`.

    Raises:
        TransformError: no rule is defined, it does not return a pair with a value like that of `fn` for each member, or
            `fn` captures a tensor that a transform follows.
        StructureError: the value has another structure.

    >>> import torch
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
        self._promise = Promise("custom_vmap", fn)
        self._rule: Callable[..., Any] | None = None
        update_wrapper(self, fn, updated=())

    def def_vmap(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Define the rule; return it, so that this is a decorator.

        Raises:
            TransformError: it is no function.
        """
        check_callable("custom_vmap.def_vmap", rule)
        self._rule = rule
        return rule

    def __call__(self, *args: Tree, **kwargs: Tree) -> Any:
        """Return the value of the function."""
        if self._rule is None:
            raise TransformError(f"custom_vmap: {describe_function(self._fn)} has no rule yet: define it with def_vmap")
        refuse_captured("custom_vmap", self._fn, self._rule)
        args = positional("custom_vmap", self._fn, (), args, kwargs)
        call = _Call(self._fn, self._rule, args, self._promise)
        if not followed(call.tensors):
            return run_watched("custom_vmap", self._fn, *args)
        return call.outputs.put(_Batched.apply(call, *call.tensors))


class _Call(UserCall):
    """One call, and its rule."""

    def __init__(
        self, fn: Callable[..., Any], rule: Callable[..., Any], args: tuple[Any, ...], promise: Promise
    ) -> None:
        super().__init__(fn, (), args)
        self.rule, self.promise = rule, promise

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        with closed("custom_vmap", self.fn, tensors):
            return super().value(*tensors)


class _Batched(Ordinary):
    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (call, *tensors), (_, *dims) = args, in_dims
        given = [leaf if dim is None else leaf.movedim(dim, 0) for leaf, dim in zip(tensors, dims, strict=True)]
        marks = [dim is not None for dim in dims]
        batched = call.inputs.put(marks)
        with overriding(), call.around_all(given, marks):
            result = call.rule(info.batch_size, list(batched), *call.arguments(given))
        if not isinstance(result, tuple) or len(result) != 2:
            raise TransformError(
                f"custom_vmap: the rule {describe_function(call.rule)} must return (value, out_batched), "
                f"got {tree.describe(result)}"
            )
        out = call.outputs.take(result[0], lambda: against("custom_vmap", call.rule, call.fn))
        marks = _marks(call, call.rule, result[1], len(out))
        _check_sizes(call.rule, out, marks, info.batch_size)
        if info.batch_size:
            _check_member(call, given, dims, out, marks)
        return tuple(out), tuple(0 if mark else None for mark in marks)


def _check_member(
    call: _Call, given: Sequence[Tensor], dims: Sequence[Any], out: Sequence[Tensor], marks: Sequence[bool]
) -> None:
    """Compare the first member's result with that of the function."""

    def first(leaves: Sequence[Tensor], batched: Iterable[bool]) -> list[Tensor]:
        return [leaf[0] if mark else leaf for leaf, mark in zip(leaves, batched, strict=True)]

    call.promise.check(
        call.inputs.structure,
        lambda: call.fn(*call.arguments(first(given, (dim is not None for dim in dims)))),
        call.rule,
        lambda: call.outputs.put(first(out, marks)),
    )


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
