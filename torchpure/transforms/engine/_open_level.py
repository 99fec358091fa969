"""Open a level of vmap, grad or jvp, run a function inside, and close it.

This is what torch.func does, without its checks: they cost as much as the work of a small network, and ours have been
made by then. torch.compile cannot follow these calls, so torch.func itself runs while it traces.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import disable_saved_tensors_hooks

from torchpure import _torch
from torchpure._torch import forward_ad, get_proxy_mode, lazy_load_decompositions, set_fwd_grad_enabled

from ._forward_rules import load_forward_rules
from ._levels import _VMAP, allow_requires_grad, current_level, functorch, innermost
from ._memory import batched_like, materialized, without_zerotensors
from ._outermost import OUTERMOST
from ._zero_tangents import like_primals

# arguments: outputs, their cotangents, keep and create graph, inputs, allow unreachable inputs, accumulate
_run_backward: Any = _torch.run_backward

_make_dual: Any = _torch.make_dual
_unpack_dual: Any = _torch.unpack_dual
torch_vjp: Any = torch.func.vjp  # Any: the results are tuples of two or three
torch_jvp: Any = torch.func.jvp
_NOTHING = nullcontext()
_is_forward: Any = _torch.is_fwd_grad_enabled
_NO_HOOKS = "a gradient inside a transform does not support saved tensor hooks"  # hooks would see wrapped tensors


def run_vmap(
    fn: Callable[..., Sequence[Tensor]], leaves: Sequence[Tensor], dims: Sequence[int], size: int
) -> list[Any]:
    """Run `fn` on one member of tensors that hold `size` members in `dims`; stack its results at dimension 0."""
    lazy_load_decompositions()
    opened = functorch.vmap_increment_nesting(size, "error")
    try:
        outputs = fn(*[functorch.add_batch_dim(leaf, dim, opened) for leaf, dim in zip(leaves, dims, strict=True)])
        return [without_zerotensors(functorch.remove_batch_dim(output, opened, size, 0)) for output in outputs]
    finally:
        functorch.vmap_decrement_nesting()


def run_grad(
    fn: Callable[..., tuple[Tensor, Sequence[Tensor]]], leaves: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return (value, others, gradients) of `fn`, which returns (scalar, other tensors)."""
    opened = functorch.grad_increment_nesting()
    outer, _gradient.level = _gradient.level, opened
    try:
        with torch.enable_grad(), disable_saved_tensors_hooks(_NO_HOOKS):
            with allow_requires_grad():
                variables = [functorch.wrap_for_grad(leaf, opened).requires_grad_() for leaf in leaves]
            before = reruns.count
            value, others = fn(*variables)
            record = reruns.count == before or _may_be_differentiated(value)
            grads = backward(value, variables, record, record)
            rest = [functorch.unwrap_for_grad(other, opened) for other in others]
            return (
                functorch.unwrap_for_grad(value, opened),
                rest,
                [functorch.unwrap_for_grad(grad, opened) for grad in grads],
            )
    finally:
        _gradient.level = outer
        functorch.grad_decrement_nesting()


class _Gradient(threading.local):
    level: int | None = None  # the innermost level that `run_grad` opened in this thread


_gradient = _Gradient()


def in_first_gradient() -> bool:
    """Return whether the only open level is a gradient of `run_grad`, and no outermost gradient is around it.

    Its function is differentiated once. A level of `vjp` does not count, because its pull-back may be differentiated.
    """
    return _gradient.level == 1 == current_level() and OUTERMOST.variables is None and forward_ad._current_level < 0


def in_first_gradient_of_members(*leaves: Tensor) -> bool:
    """Return whether the tensors are differentiated once at most, backwards; all else around it are vmaps.

    A level of `vjp` does not count, as in `in_first_gradient`.
    """
    kinds = [one.key() for one in functorch.get_interpreter_stack() or []]
    gradients = [number for number, kind in enumerate(kinds, 1) if kind != _VMAP]
    if forward_ad._current_level >= 0 or len(gradients) > 1:
        return False
    return not gradients or (
        gradients[0] == _gradient.level and not any(innermost(leaf).requires_grad for leaf in leaves)
    )


class _Reruns(threading.local):
    count = 0  # functions that the backward passes of this thread will run again


reruns = _Reruns()


def _may_be_differentiated(value: Tensor) -> bool:
    """Return whether an outer transform may differentiate a gradient, or a tracer wants its program.

    If not, a backward pass in which `remat` runs functions again is not recorded: the graph would keep every value
    until the pass ends. Backward passes without `remat` are always recorded, because torch's formulas for passes that
    are not recorded are slow under vmap.
    """
    return (
        get_proxy_mode() is not None
        or forward_ad._current_level >= 0
        or any(one.key() != _VMAP for one in functorch.get_interpreter_stack()[:-1])
        or innermost(value).requires_grad
    )


def backward(
    value: Tensor, variables: list[Tensor], create_graph: bool = True, keep_graph: bool = True
) -> list[Tensor]:
    """Return the gradients of one scalar, as torch.autograd.grad does; its checks cost a fifth of a small step."""
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in variables]
    found = _run_backward((value,), (torch.ones_like(value),), keep_graph, create_graph, tuple(variables), True, False)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, variables, strict=True)]


def run_jvp(
    fn: Callable[..., tuple[Sequence[Tensor], Sequence[Tensor]]], primals: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return (outputs, tangents, others) of `fn`, which returns (outputs, other tensors)."""
    load_forward_rules()
    tangents = batched_like(primals, tangents)
    opened = functorch.jvp_increment_nesting()
    try:
        with _NOTHING if _is_forward() else set_fwd_grad_enabled(True):
            forward = forward_ad._current_level
            pairs = zip(map(materialized, primals), tangents, strict=True)
            outputs, others = fn(*[_make_dual(primal, tangent, level=forward) for primal, tangent in pairs])
            duals = [_unpack_dual(output, level=forward) for output in outputs]
            values = [functorch.unwrap_for_grad(primal, opened) for primal, _ in duals]
            moved = [None if tangent is None else functorch.unwrap_for_grad(tangent, opened) for _, tangent in duals]
            rest = [functorch.unwrap_for_grad(other, opened) for other in others]
    finally:
        functorch.jvp_decrement_nesting()
    # after the level is closed: zeros that are made inside belong to it
    tangents = [
        torch.zeros_like(v) if t is None else without_zerotensors(t) for v, t in zip(values, moved, strict=True)
    ]
    return values, like_primals(tangents, values), rest


def has_tangent(output: Tensor) -> bool:
    """Return whether a tensor depends on the variables of the innermost forward derivative."""
    return _unpack_dual(output, level=forward_ad._current_level)[1] is not None


def as_dual(value: Tensor) -> Tensor:
    """Return a tensor that counts as one that depends on the variables of the innermost forward derivative.

    Its tangent is arbitrary.
    """
    return _make_dual(value, value, level=forward_ad._current_level)


def forward_derivatives_are_on() -> bool:
    """Return whether operations have tangents here; not under `no_grad`."""
    return _is_forward()
