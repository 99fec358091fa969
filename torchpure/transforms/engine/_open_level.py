"""Open a level of torch's derivatives, run a function inside, and close it again."""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import disable_saved_tensors_hooks

from torchpure import _torch
from torchpure._torch import forward_ad, get_proxy_mode, lazy_load_decompositions, set_fwd_grad_enabled

from ._levels import _VMAP, functorch, innermost, own_variables
from ._memory import mapped_as, whole, with_memory

# arguments: outputs, their cotangents, keep and create graph, inputs, allow unreachable inputs, accumulate
_run_backward: Any = _torch.run_backward

_make_dual: Any = _torch.make_dual
_unpack_dual: Any = _torch.unpack_dual
torch_vjp: Any = torch.func.vjp  # their results are tuples of two or three
torch_jvp: Any = torch.func.jvp
_NOTHING = nullcontext()
_is_forward: Any = _torch.is_fwd_grad_enabled
_NO_HOOKS = "a gradient inside a transform does not support saved tensor hooks"  # hooks would see wrapped tensors


def batched(fn: Callable[..., Sequence[Tensor]], leaves: Sequence[Tensor], dims: Sequence[int], size: int) -> list[Any]:
    """Run `fn` on one member of tensors that hold `size` members in these dimensions; stack what it returns, at 0."""
    lazy_load_decompositions()
    opened = functorch.vmap_increment_nesting(size, "error")
    try:
        outputs = fn(*[functorch.add_batch_dim(leaf, dim, opened) for leaf, dim in zip(leaves, dims, strict=True)])
        return [whole(functorch.remove_batch_dim(output, opened, size, 0)) for output in outputs]
    finally:
        functorch.vmap_decrement_nesting()


def differentiated(
    fn: Callable[..., tuple[Tensor, Sequence[Tensor]]], leaves: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the value of `fn`, which gives (scalar, other tensors), its others, and its gradient."""
    opened = functorch.grad_increment_nesting()
    try:
        with torch.enable_grad(), disable_saved_tensors_hooks(_NO_HOOKS):
            with own_variables():
                own = [functorch.wrap_for_grad(leaf, opened).requires_grad_() for leaf in leaves]
            before = reruns.count
            value, others = fn(*own)
            again = reruns.count == before or _differentiated_again(value)
            grads = backward(value, own, again, again)
            rest = [functorch.unwrap_for_grad(other, opened) for other in others]
            return (
                functorch.unwrap_for_grad(value, opened),
                rest,
                [functorch.unwrap_for_grad(grad, opened) for grad in grads],
            )
    finally:
        functorch.grad_decrement_nesting()


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
    opened = functorch.jvp_increment_nesting()
    try:
        with _NOTHING if _is_forward() else set_fwd_grad_enabled(True):
            forward = forward_ad._current_level
            pairs = zip(map(with_memory, primals), tangents, strict=True)
            outputs, others = fn(*[_make_dual(primal, tangent, level=forward) for primal, tangent in pairs])
            duals = [_unpack_dual(output, level=forward) for output in outputs]
            values = [functorch.unwrap_for_grad(primal, opened) for primal, _ in duals]
            moved = [None if tangent is None else functorch.unwrap_for_grad(tangent, opened) for _, tangent in duals]
            rest = [functorch.unwrap_for_grad(other, opened) for other in others]
    finally:
        functorch.jvp_decrement_nesting()
    # after the level is closed: inside of it new zeros would belong to it
    tangents = [torch.zeros_like(v) if t is None else whole(t) for v, t in zip(values, moved, strict=True)]
    return values, tangents, rest


@lru_cache(maxsize=1)
def _load_forward_rules() -> None:
    """Load the forward derivatives that torch has in Python; its own `make_dual` does so at its first call."""
    _torch.maybe_load_decompositions()
