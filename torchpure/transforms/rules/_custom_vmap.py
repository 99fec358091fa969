"""Functions with a custom batching rule (as `jax.custom_batching.custom_vmap`)."""

from collections.abc import Callable, Iterable, Sequence
from functools import update_wrapper
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import Call, Rerun, bind_positional, check_callable, needs_rules
from torchpure.transforms.engine import describe_function
from torchpure.transforms.overrides import UserCall, overriding
from torchpure.transforms.purity import run_watched

from ._captures import guard_captures, refuse_captures
from ._output_check import OutputCheck, comparison


class custom_vmap:  # noqa: N801 a decorator
    """Give a function a custom batching rule.

    Define the rule with `fn.def_vmap(rule)`. `rule(size, in_batched, *args)` returns (value, out_batched). Batched
    arguments have their members at dimension 0. `in_batched` is a list with a tree of bools for each argument.
    `out_batched` is a tree of bools like the value, or one bool for all of it.

    `grad` of `vmap(fn)` differentiates the rule. `vmap(grad(fn))` differentiates `fn`, and torch maps the derivative:
    only the value comes from the rule, where JAX differentiates the rule there too. So `vmap` must be able to map `fn`
    itself if derivatives of `fn` are mapped.

    Law: `vmap(fn)` is `rule`, which must equal a loop over `fn`.

    Raises:
        TransformError: no rule is defined, it does not return a pair, or its value is not like that of `fn` per member.
        TransformError: `fn` captures a tensor that a transform tracks.
        StructureError: the value of the rule has another structure.

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
        self._output_check = OutputCheck("custom_vmap", fn)
        self._rule: Callable[..., Any] | None = None
        update_wrapper(self, fn, updated=())

    def def_vmap(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Define the rule and return it, so that this works as a decorator.

        Raises:
            TransformError: the rule is not a function.
        """
        check_callable("custom_vmap.def_vmap", rule)
        self._rule = rule
        return rule

    def __call__(self, *args: Tree, **kwargs: Tree) -> Any:
        """Return the value of the function."""
        if self._rule is None:
            raise TransformError(f"custom_vmap: {describe_function(self._fn)} has no rule yet: define it with def_vmap")
        refuse_captures("custom_vmap", self._fn, self._rule)
        args = bind_positional("custom_vmap", self._fn, (), args, kwargs)
        call = _CustomVmapCall(self._fn, self._rule, args, self._output_check)
        if not needs_rules(call.tensors):
            return run_watched("custom_vmap", self._fn, *args)
        return call.outputs.unflatten(_CustomVmap.apply(call, *call.tensors))


class _CustomVmapCall(UserCall):
    """One call of a `custom_vmap` function, with its rule."""

    def __init__(
        self, fn: Callable[..., Any], rule: Callable[..., Any], args: tuple[Any, ...], output_check: OutputCheck
    ) -> None:
        super().__init__(fn, (), args)
        self.rule, self.output_check = rule, output_check

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        with guard_captures("custom_vmap", self.fn, tensors):
            return super().value(*tensors)


class _CustomVmap(Rerun):
    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (call, *tensors), (_, *dims) = args, in_dims
        inputs = [leaf if dim is None else leaf.movedim(dim, 0) for leaf, dim in zip(tensors, dims, strict=True)]
        in_batched = [dim is not None for dim in dims]
        batched_trees = call.inputs.unflatten(in_batched)
        with overriding(), call.restore_env_collapsed(inputs, in_batched):
            result = call.rule(info.batch_size, list(batched_trees), *call.arguments(inputs))
        if not isinstance(result, tuple) or len(result) != 2:
            raise TransformError(
                f"custom_vmap: the rule {describe_function(call.rule)} must return (value, out_batched), "
                f"got {tree.describe(result)}"
            )
        out = call.outputs.flatten(result[0], lambda: comparison("custom_vmap", call.rule, call.fn))
        out_batched = _out_batched(call, call.rule, result[1], len(out))
        _check_sizes(call.rule, out, out_batched, info.batch_size)
        if info.batch_size:
            _check_first_member(call, inputs, dims, out, out_batched)
        return tuple(out), tuple(0 if batched else None for batched in out_batched)


def _check_first_member(
    call: _CustomVmapCall,
    inputs: Sequence[Tensor],
    dims: Sequence[Any],
    out: Sequence[Tensor],
    out_batched: Sequence[bool],
) -> None:
    """Compare the result for the first member with that of the function."""

    def first(leaves: Sequence[Tensor], flags: Iterable[bool]) -> list[Tensor]:
        return [leaf[0] if batched else leaf for leaf, batched in zip(leaves, flags, strict=True)]

    call.output_check.check(
        call.inputs.structure,
        lambda: call.fn(*call.arguments(first(inputs, (dim is not None for dim in dims)))),
        call.rule,
        lambda: call.outputs.unflatten(first(out, out_batched)),
    )


def _out_batched(call: Call, rule: Any, batched: Any, count: int) -> Sequence[bool]:
    if isinstance(batched, bool):
        return [batched] * count
    return call.outputs.match(f"custom_vmap: {describe_function(rule)}: out_batched", batched)


def _check_sizes(rule: Any, out: Sequence[Tensor], out_batched: Sequence[bool], size: int) -> None:
    for leaf, batched in zip(out, out_batched, strict=True):
        if batched and (not leaf.ndim or leaf.shape[0] != size):
            raise TransformError(
                f"custom_vmap: the rule {describe_function(rule)} says that {tree.describe(leaf)} is batched: wanted "
                f"{size} members at dimension 0"
            )
