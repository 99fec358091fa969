"""Rematerialisation: a backward pass computes values again (Chen et al. 2016, arXiv:1604.06174)."""

import threading
from collections.abc import Callable, Collection
from contextlib import nullcontext
from functools import partial, wraps
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.fx import Node, traceback
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from torchpure import tree
from torchpure._torch import get_proxy_mode
from torchpure.errors import TransformError
from torchpure.transforms.calls import Ordinary, check_callable, frozen
from torchpure.transforms.engine import in_outermost_grad, reruns
from torchpure.transforms.overrides import UserCall
from torchpure.transforms.purity import watched

from ._captures import captured, closed

_aten = torch.ops.aten
_DOTS = {
    op.default
    for op in (
        _aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm, _aten.addbmm, _aten.mv, _aten.addmv, _aten.dot,
        _aten.linear, _aten.matmul, _aten.einsum, _aten.convolution,
        _aten._scaled_dot_product_flash_attention_for_cpu, _aten._scaled_dot_product_flash_attention,
        _aten._scaled_dot_product_efficient_attention,
    )
}  # fmt: skip
Policy = Callable[[Any], bool]  # tells of an operation, or of the name of a value, whether the result is kept


def remat(fn: Callable[..., Any], policy: str | Collection[str] | Policy = "nothing") -> Callable[..., Any]:
    """Return a function whose values are computed again in the backward pass: less memory for more time.

    `policy` tells what is kept besides the arguments: "nothing"; "dots", the results of matrix products, convolutions
    and attention; a set of names that `remat_name` gives to values; or a function that tells of an operation of torch
    whether its result is kept. That saves time in the outermost gradient and in programs of `jit`; in eager code inside
    of other transforms nothing is kept. Where a gradient is differentiated again, eager code records its backward
    pass, and the record holds what is run again until the pass ends. `fn` must be pure; what it captures is followed.

    Law: `remat(fn)` and its derivatives equal `fn` and its derivatives.

    Raises:
        TransformError: there is no such policy.

    >>> from torchpure import grad
    >>> grad(lambda x: remat(torch.sin, "dots")(x) * 2)(torch.tensor(0.0))
    tensor(2.)
    """
    check_callable("remat", fn)
    keeps = _policy(policy)

    @wraps(fn, updated=())
    def again(*args: Any, **kwargs: Any) -> Any:
        run = frozen(partial(fn, **kwargs) if kwargs else fn)
        watch = watched("remat", fn, args, kwargs)
        out = computed(run, args)
        watch.check()
        return watch.unaliased(out)

    def computed(run: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if is_dynamo_compiling() or (tree.unwatched() and (keeps is None or in_outermost_grad())):
            options: dict[str, Any] = {} if keeps is None else {"context_fn": partial(_contexts, keeps)}
            try:
                return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **options)
            except (RuntimeError, TransformError) as error:
                if "hooks" not in str(error):
                    raise  # else a gradient inside of fn knows no hooks, which this way needs: the other one is right
        others = captured(run)
        call = _Call(run, args, others, keeps)
        reruns.count += 1
        return call.outputs.put(Ordinary.apply(call, *others, *call.tensors))

    return again


def _policy(policy: Any) -> Policy | None:
    if policy == "nothing":
        return None
    if policy == "dots":
        return _DOTS.__contains__
    if callable(policy):
        return policy
    if isinstance(policy, Collection) and not isinstance(policy, str) and all(isinstance(name, str) for name in policy):
        return frozenset(policy).__contains__
    raise TransformError(
        f"remat: wanted the policy 'nothing', 'dots', a set of names or a function, got {tree.describe(policy)}"
    )


def remat_name(value: Tensor, name: str) -> Tensor:
    """Return a value under a name, which a policy of `remat` may choose to keep.

    >>> remat_name(torch.tensor(1.0), "hidden")
    tensor(1.)
    """
    if not isinstance(value, Tensor):
        raise TransformError(f"remat_name: wanted a tensor, got {tree.describe(value)}")
    if not isinstance(name, str):
        raise TransformError(f"remat_name: the name must be a str, got {tree.describe(name)}")
    _naming.name = name
    try:
        with traceback.annotate({_NAME: name}) if get_proxy_mode() is not None else nullcontext():
            return value.clone()
    finally:
        _naming.name = None


class _Naming(threading.local):
    name: str | None = None  # of the copy that this thread is making


_naming = _Naming()


def _contexts(policy: Policy) -> Any:
    def decide(ctx: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = policy(_naming.name if _naming.name and operation is _aten.clone.default else operation)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(decide)


class Again(NamedTuple):
    """Marks the operations of a program that are run again, so that nobody takes the first ones in their places."""

    number: int  # of the run
    keeps: Policy | None
    first: "Again | None"  # the run in which the function ran first, if that was itself one more


_AGAIN, _NAME = "again", "remat_name"  # in the "custom" part of a node's meta
_numbers = count(1)


def runs(node: Node) -> tuple[int | None, int | None]:
    """Return in which further run an operation of a program is, and in which one its result is taken from; None: first.

    They differ where a policy keeps the result.
    """
    custom = node.meta.get("custom") or {}
    mark = own = custom.get(_AGAIN)
    while mark is not None and mark.keeps is not None and mark.keeps(custom.get(_NAME, node.target)):
        mark = mark.first
    return own and own.number, mark and mark.number


def _mark() -> Again | None:
    return traceback.current_meta.get("custom", {}).get(_AGAIN)


class _Call(UserCall):
    """One call, with the tensors that the function captures in front of its arguments'."""

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], others: list[Tensor], keeps: Policy | None
    ) -> None:
        super().__init__(fn, (), args)
        self.others, self.keeps, self.first = others, keeps, _mark()

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        number = len(self.others)
        instead = {id(old): new for old, new in zip(self.others, tensors, strict=False)}
        with closed("remat", self.fn, tensors, instead):
            out = super().value(*tensors[number:])
        return tuple(instead.get(id(leaf), leaf) for leaf in out)

    def again(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value once more, and mark the operations in a program."""
        if get_proxy_mode() is None:
            return self.value(*tensors)
        with traceback.annotate({_AGAIN: Again(next(_numbers), self.keeps, self.first)}):
            return self.value(*tensors)
