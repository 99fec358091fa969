"""Rematerialisation: a backward pass computes values again (Chen et al. 2016, arXiv:1604.06174)."""

import threading
from collections.abc import Callable, Collection
from contextlib import nullcontext
from functools import partial, update_wrapper, wraps
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.fx import Node, traceback
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from torchpure import tree
from torchpure._torch import checkpoint_body, get_proxy_mode
from torchpure._types import P, T
from torchpure.errors import TransformError
from torchpure.transforms.calls import Rerun, check_callable, hint_keywords, snapshot_cells
from torchpure.transforms.context import CallEnv, new_body
from torchpure.transforms.engine import in_outermost_grad, is_variable, reruns
from torchpure.transforms.overrides import UserCall, overriding
from torchpure.transforms.purity import refuse_hidden_tensors, watched

from ._buffers import with_buffers
from ._captures import find_captures, guard_captures

_aten = torch.ops.aten
_MATRIX_PRODUCTS = {
    op.default
    for op in (
        _aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm, _aten.addbmm, _aten.mv, _aten.addmv, _aten.dot,
        _aten.linear, _aten.matmul, _aten.einsum, _aten.convolution,
        _aten._scaled_dot_product_flash_attention_for_cpu, _aten._scaled_dot_product_flash_attention,
        _aten._scaled_dot_product_efficient_attention,
    )
}  # fmt: skip
Policy = Callable[[Any], bool]  # gets an operation, or the name of a value; True: save the result


@hint_keywords(
    prevent_cse="leave it out: recomputation stays in the program",
    static_argnums="leave it out: what is no tensor passes through",
    concrete="leave it out: what is no tensor passes through",
    use_reentrant="leave it out: every derivative works",
    context_fn="write policy",
)
def remat(fn: Callable[P, T], policy: str | Collection[str] | Policy = "nothing") -> Callable[P, T]:
    """Return a function whose values are computed again in the backward pass: less memory for more time.

    `policy` says which results are saved besides the arguments:

    - "nothing", the default;
    - "dots": results of matrix products, convolutions and attention;
    - a set of names that `remat_name` gives to values;
    - a function from an operation of torch to a bool.

    A policy saves time in the outermost gradient and in programs of `jit`. Eager code inside of other transforms saves
    nothing. Eager code that differentiates a gradient holds all recomputed values until the backward pass ends. `fn`
    must be pure; tensors that it captures are differentiated too.

    Law: `remat(fn)` and its derivatives equal `fn` and its derivatives.

    Raises:
        TransformError: the policy is none of these.

    >>> from torchpure import grad
    >>> grad(lambda x: remat(torch.sin, "dots")(x) * 2)(torch.tensor(0.0))
    tensor(2.)
    """
    check_callable("remat", fn)
    keep = _keep_function(policy)
    options: dict[str, Any] = {} if keep is None else {"context_fn": partial(_checkpoint_contexts, keep)}

    @wraps(fn, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        watch = watched("remat", fn, args, kwargs)
        out = run_rematerialised(partial(fn, **kwargs) if kwargs else fn, args, keep, options)
        watch.check()
        return watch.unaliased(out)

    return wrapped


def run_rematerialised(
    fn: Callable[..., Any], args: tuple[Any, ...], keep: Policy | None, options: dict[str, Any]
) -> Any:
    """Return `fn(*args)` for a policy, and these options of torch.utils.checkpoint; buffers are updated once."""

    def run_pure(run: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if is_dynamo_compiling():
            return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **options)
        if tree.unwatched() and (not options or in_outermost_grad()):
            try:
                resumed = _RunInEnv(run)
                return checkpoint_body(resumed, *args, use_reentrant=False, preserve_rng_state=False, **options)
            except RuntimeError as error:
                if "hooks" not in str(error):
                    raise  # a gradient inside of fn forbids the hooks of checkpoint: use the operation below
        captured = find_captures(run)
        call = _RematCall(_without_hidden_tensors(run), args, captured, keep)
        reruns.count += 1
        return call.outputs.unflatten(Rerun.apply(call, *captured, *call.tensors))

    return with_buffers(run_pure, snapshot_cells(fn), args)


def _without_hidden_tensors(run: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*args: Any) -> Any:
        out = run(*args)
        refuse_hidden_tensors("remat", run, tree.leaves(out), is_variable)
        return out

    return update_wrapper(checked, run, updated=())


class _RunInEnv:
    """Runs a function under the overrides; later runs restore the environment of the first.

    The overrides are on in each run, so that every run saves the same tensors: torch compares them.
    """

    __slots__ = ("_env", "_has_run", "_run")

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run, self._env, self._has_run = run, CallEnv(), False

    def __call__(self, *args: Any) -> Any:
        if not self._has_run:
            self._has_run = True
            with new_body(), overriding():
                return self._run(*args)
        with self._env.restored(self._env.tensors), overriding():
            return self._run(*args)


def _keep_function(policy: Any) -> Policy | None:
    if policy == "nothing":
        return None
    if policy == "dots":
        return _MATRIX_PRODUCTS.__contains__
    if callable(policy):
        return policy
    if isinstance(policy, Collection) and not isinstance(policy, str) and all(isinstance(name, str) for name in policy):
        return frozenset(policy).__contains__
    raise TransformError(
        f"remat: wanted the policy 'nothing', 'dots', a set of names or a function, got {tree.describe(policy)}"
    )


def remat_name(value: Tensor, name: str) -> Tensor:
    """Give a value a name, so that a policy of `remat` can save it.

    >>> remat_name(torch.tensor(1.0), "hidden")
    tensor(1.)
    """
    if not isinstance(value, Tensor):
        raise TransformError(f"remat_name: wanted a tensor, got {tree.describe(value)}")
    if not isinstance(name, str):
        raise TransformError(f"remat_name: the name must be a str, got {tree.describe(name)}")
    _named_copy.name = name
    try:
        with traceback.annotate({_NAME: name}) if get_proxy_mode() is not None else nullcontext():
            return value.clone()
    finally:
        _named_copy.name = None


class _NamedCopy(threading.local):
    name: str | None = None  # of the copy that `remat_name` makes in this thread


_named_copy = _NamedCopy()


def _checkpoint_contexts(policy: Policy) -> Any:
    def decide(ctx: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        save = policy(_named_copy.name if _named_copy.name and operation is _aten.clone.default else operation)
        return CheckpointPolicy.MUST_SAVE if save else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(decide)


class Recomputation(NamedTuple):
    """Mark recomputed operations of a program, so that common subexpression elimination keeps them."""

    number: int  # counts recomputations
    policy: Policy | None
    original: "Recomputation | None"  # that of the original run, if this was a recomputation too


_RECOMPUTATION, _NAME = "recomputation", "remat_name"  # keys of node.meta["custom"]
_numbers = count(1)


def recomputation_of(node: Node) -> tuple[int | None, int | None]:
    """Return the recomputation of an operation, and the one that its result comes from; None stands for the first run.

    They differ if a policy saves the result.
    """
    custom = node.meta.get("custom") or {}
    source = own = custom.get(_RECOMPUTATION)
    while source is not None and source.policy is not None and source.policy(custom.get(_NAME, node.target)):
        source = source.original
    return own and own.number, source and source.number


def _current_recomputation() -> Recomputation | None:
    return traceback.current_meta.get("custom", {}).get(_RECOMPUTATION)


class _RematCall(UserCall):
    """One call of a `remat` function; captured tensors come before those of the arguments."""

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], captured: list[Tensor], policy: Policy | None
    ) -> None:
        super().__init__(fn, (), args)
        self.captured, self.policy, self.original = captured, policy, _current_recomputation()

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        num_captured = len(self.captured)
        replacements = {id(old): new for old, new in zip(self.captured, tensors, strict=False)}
        with guard_captures("remat", self.fn, tensors, replacements):
            out = super().value(*tensors[num_captured:])
        return tuple(replacements.get(id(leaf), leaf) for leaf in out)

    def recompute(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Compute the tensors of the value again, and mark the operations in a program."""
        if get_proxy_mode() is None:
            return self.value(*tensors)
        with traceback.annotate({_RECOMPUTATION: Recomputation(next(_numbers), self.policy, self.original)}):
            return self.value(*tensors)
