"""One level of torch's transforms, opened and closed here: what torch.func does, without its checks.

The checks of torch.func cost as much as the work of a small network; ours have been made by then. A compiler cannot
follow these calls: while `torch.compile` traces, torch.func itself is used.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._functorch.predispatch import lazy_load_decompositions
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.compiler import is_dynamo_compiling
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._python_dispatch import _disable_current_modes

functorch: Any = torch._C._functorch
# arguments: outputs, their cotangents, keep and create graph, inputs, allow unreachable inputs, accumulate
_run_backward: Any = torch.autograd.Variable._execution_engine.run_backward

_make_dual: Any = torch._VF._make_dual  # pyrefly: ignore[missing-attribute] the stubs lack it
_unpack_dual: Any = torch._VF._unpack_dual  # pyrefly: ignore[missing-attribute]
torch_vjp: Any = torch.func.vjp  # their results are tuples of two or three
torch_jvp: Any = torch.func.jvp
_VMAP = functorch.TransformType.Vmap
_NOTHING = nullcontext()
unseen: Any = torch._C.DisableTorchFunction  # modes are for operations: looks at sizes, versions, memory pass by
_is_forward: Any = torch._C._is_fwd_grad_enabled
_NO_HOOKS = "a gradient inside a transform does not support saved tensor hooks"  # hooks would see wrapped tensors


@contextmanager
def apart() -> Iterator[None]:
    """Compute as if no transform and no tracer were at work: for what depends on nothing that they follow."""
    if is_dynamo_compiling() or (functorch.peek_interpreter_stack() is None and get_proxy_mode() is None):
        yield
        return
    with temporarily_clear_interpreter_stack(), _disable_current_modes():
        yield


def batched(fn: Callable[..., Sequence[Tensor]], leaves: Sequence[Tensor], dims: Sequence[int], size: int) -> list[Any]:
    """Run `fn` on one member of tensors that hold `size` members in these dimensions; stack what it returns, at 0."""
    lazy_load_decompositions()
    opened = functorch._vmap_increment_nesting(size, "error")
    try:
        outputs = fn(*[functorch._add_batch_dim(leaf, dim, opened) for leaf, dim in zip(leaves, dims, strict=True)])
        return [whole(functorch._remove_batch_dim(output, opened, size, 0)) for output in outputs]
    finally:
        functorch._vmap_decrement_nesting()


def differentiated(
    fn: Callable[..., tuple[Tensor, Sequence[Tensor]]], leaves: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the value of `fn`, which gives (scalar, other tensors), its others, and its gradient."""
    opened = functorch._grad_increment_nesting()
    try:
        with torch.enable_grad(), disable_saved_tensors_hooks(_NO_HOOKS):
            with own_variables():
                own = [functorch._wrap_for_grad(leaf, opened).requires_grad_() for leaf in leaves]
            before = reruns.count
            value, others = fn(*own)
            again = reruns.count == before or _differentiated_again(value)
            grads = backward(value, own, again, again)
            rest = [functorch._unwrap_for_grad(other, opened) for other in others]
            return (
                functorch._unwrap_for_grad(value, opened),
                rest,
                [functorch._unwrap_for_grad(grad, opened) for grad in grads],
            )
    finally:
        functorch._grad_decrement_nesting()


class _Reruns(threading.local):
    count = 0  # of functions that this thread's backward passes run again


reruns = _Reruns()


def _differentiated_again(value: Tensor) -> bool:
    """Tell whether something further out may differentiate a gradient, or its program is wanted.

    Where nothing does, a backward pass in which `remat` runs functions again is not recorded: a record keeps all that
    it computes until it ends. Others are, because some formulas that torch uses then are slow among members.
    """
    return (
        get_proxy_mode() is not None
        or forward_ad._current_level >= 0
        or any(one.key() != _VMAP for one in functorch.get_interpreter_stack()[:-1])
        or innermost(value).requires_grad
    )


@contextmanager
def own_variables() -> Iterator[None]:
    """Let code inside of a transform make variables, as constructors of modules do."""
    if is_dynamo_compiling():
        yield
        return
    allowed = functorch.get_inplace_requires_grad_allowed()
    functorch.set_inplace_requires_grad_allowed(True)
    try:
        yield
    finally:
        functorch.set_inplace_requires_grad_allowed(allowed)


def backward(value: Tensor, own: list[Tensor], create_graph: bool = True, keep_graph: bool = True) -> list[Tensor]:
    """Do what torch.autograd.grad does for one scalar, without its checks, which cost a fifth of a small step."""
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in own]
    found = _run_backward((value,), (torch.ones_like(value),), keep_graph, create_graph, tuple(own), True, False)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, own, strict=True)]


def pushed(
    fn: Callable[..., tuple[Sequence[Tensor], Sequence[Tensor]]], primals: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return the outputs of `fn`, which gives (outputs, other tensors), their tangents, and the others."""
    _load_forward_rules()
    tangents = mapped_as(primals, tangents)
    opened = functorch._jvp_increment_nesting()
    try:
        with _NOTHING if _is_forward() else forward_ad._set_fwd_grad_enabled(True):
            forward = forward_ad._current_level
            pairs = zip(map(with_memory, primals), tangents, strict=True)
            outputs, others = fn(*[_make_dual(primal, tangent, level=forward) for primal, tangent in pairs])
            duals = [_unpack_dual(output, level=forward) for output in outputs]
            values = [functorch._unwrap_for_grad(primal, opened) for primal, _ in duals]
            moved = [None if tangent is None else functorch._unwrap_for_grad(tangent, opened) for _, tangent in duals]
            rest = [functorch._unwrap_for_grad(other, opened) for other in others]
    finally:
        functorch._jvp_decrement_nesting()
    # after the level is closed: inside of it new zeros would belong to it
    tangents = [torch.zeros_like(v) if t is None else whole(t) for v, t in zip(values, moved, strict=True)]
    return values, tangents, rest


@lru_cache(maxsize=1)
def _load_forward_rules() -> None:
    """Load the forward derivatives that torch has in Python; its own `make_dual` does so at its first call."""
    forward_ad._maybe_load_decompositions()


def mapped_as(primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> Sequence[Tensor]:
    """Give tangents room for all members that their primals have: what is written into a copy of both may differ."""
    if functorch.peek_interpreter_stack() is None:
        return tangents
    return [
        tangent if mapped_levels(primal) <= mapped_levels(tangent) else torch.zeros_like(primal) + tangent
        for primal, tangent in zip(primals, tangents, strict=True)
    ]


def with_room(leaf: Any, others: Sequence[Any]) -> Any:
    """Give a tensor room for all members that others have; where there are none, there is nothing to have room for."""
    if isinstance(leaf, Tensor):
        for other in others:
            if not isinstance(other, Tensor) or mapped_levels(other) <= mapped_levels(leaf):
                continue
            if innermost(other).numel():
                leaf = leaf + torch.zeros_like(other.reshape(-1)[:1].sum(), dtype=leaf.dtype)
    return leaf


def with_members(leaf: Any) -> Any:
    """Give a tensor of real or complex numbers room for the members of every vmap around."""
    if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or leaf.is_complex()):
        return leaf
    stack = functorch.get_interpreter_stack() or []
    sizes = {one.level(): functorch.CVmapInterpreterPtr(one).batchSize() for one in stack if one.key() == _VMAP}
    with temporarily_clear_interpreter_stack():  # levels above a vmap would wrap its zeros
        zeros = [torch.zeros(size, dtype=leaf.dtype, device=leaf.device) for size in sizes.values()]
    members = [functorch._add_batch_dim(zero, 0, at) for zero, at in zip(zeros, sizes, strict=True)]
    return with_room(leaf, members)


def whole(leaf: Tensor) -> Tensor:
    """Return ordinary zeros for those without memory that torch's forward derivatives hand out."""
    return torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device) if leaf._is_zerotensor() else leaf


def dense(leaf: Tensor) -> Tensor:
    """Return a tensor that torch can lay a tangent out as, when it makes a dual of both."""
    return with_memory(leaf).contiguous()


def with_memory(leaf: Tensor) -> Tensor:
    """Return a tensor each of whose elements, over all members, has memory of its own: zeros may have none."""
    if is_dynamo_compiling():
        return leaf
    with unseen():
        base = innermost(leaf)
        sizes, strides, none = base.shape, base.stride(), base._is_zerotensor()
    shared = none or (0 in strides and any(size > 1 and not step for size, step in zip(sizes, strides, strict=True)))
    return leaf.clone(memory_format=torch.contiguous_format) if shared else leaf


def fresh(outputs: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Return outputs that share no memory with inputs or with each other, so that they may be changed in place."""
    place = id if is_dynamo_compiling() else _memory
    with unseen():
        places, taken = [place(leaf) for leaf in outputs], {place(leaf) for leaf in inputs}
    result = []
    for leaf, at in zip(outputs, places, strict=True):
        result.append(leaf.clone() if at in taken and isinstance(leaf, Tensor) else leaf)
        if at is not None:
            taken.add(at)
    return tuple(result)


def _memory(leaf: Any) -> int | None:
    """Tell the memory of a tensor from that of others; None where there is none to change."""
    base = innermost(leaf) if isinstance(leaf, Tensor) else None
    if base is None or base.layout is not torch.strided or base._is_zerotensor():
        return None
    return base.untyped_storage()._cdata


def innermost(leaf: Tensor) -> Tensor:
    """Return the tensor that transforms have wrapped, however often."""
    while functorch.is_functorch_wrapped_tensor(leaf):
        leaf = functorch.get_unwrapped(leaf)
    return leaf


def mapped_levels(leaf: Tensor) -> set[int]:
    """Return the levels of the vmaps whose members differ in a tensor."""
    found = set()
    while functorch.is_functorch_wrapped_tensor(leaf):
        if functorch.is_batchedtensor(leaf):
            found.add(functorch.maybe_get_level(leaf))
        leaf = functorch.get_unwrapped(leaf)
    return found


def stale(leaf: Tensor) -> bool:
    """Tell whether a tensor belongs to a level that has been closed."""
    if not functorch.is_functorch_wrapped_tensor(leaf):
        return False
    own = functorch.maybe_get_level(leaf)
    return own < 0 or own > level()


def level() -> int:
    """Return the number of levels that are open here."""
    return functorch.maybe_current_level() or 0
