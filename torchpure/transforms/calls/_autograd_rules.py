"""Pieces shared by rules of `autograd.Function`: what is saved, differentiable inputs, zeros, transposition."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import forward_ad, is_fwd_grad_enabled, set_fwd_grad_enabled
from torchpure.transforms.engine import functorch, is_variable, level_kinds, torch_vjp, unaliased, with_batch_dims_of


def save(ctx: Any, call: Any, tensors: Sequence[Tensor], output: Sequence[Tensor]) -> None:
    """Keep in a context what both rules need."""
    ctx.call = call
    ctx.mark_non_differentiable(*(out for out in output if not is_variable(out)))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def followed(tensors: Sequence[Tensor]) -> bool:
    """Tell whether derivatives or members are computed here; inside an operation none are."""
    return (
        functorch.peek_interpreter_stack() is not None
        or (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tensors))
        or (forward_ad._current_level >= 0 and is_fwd_grad_enabled())
    )


def filled(values: Sequence[Any], places: Sequence[int], others: Sequence[Any]) -> list[Any]:
    """Return the values with others in some places."""
    every = list(values)
    for i, other in zip(places, others, strict=True):
        every[i] = other
    return every


def zeros_for(tensors: Sequence[Tensor], parts: Sequence[Any]) -> list[Any]:
    """Fill in zeros where a variable has no tangent or cotangent; None stays for what can have none."""
    return [
        torch.zeros_like(like) if part is None and is_variable(like) else part
        for part, like in zip(parts, tensors, strict=True)
    ]


def transposed(
    linear: Callable[..., Sequence[Tensor]], likes: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Tensor]:
    """Return the transpose of a linear function of tensors like these, at these cotangents."""
    _, pull = torch_vjp(lambda *values: tuple(linear(*values)), *(torch.zeros_like(like) for like in likes))
    return list(pull(tuple(cotangents)))


def differentiable(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Let other transforms see what the forward rule of an operation computes: torch runs it without derivatives.

    Who changes the result in place changes its tangent too: so a tangent that the rule hands on is copied, and each has
    room for all members that its result may have.
    """

    @wraps(rule)
    def run(ctx: Any, *tangents: Any) -> Any:
        with torch.enable_grad(), set_fwd_grad_enabled(True):
            out = rule(ctx, *tangents)
            several = isinstance(out, tuple | list)
            own = unaliased(out if several else (out,), tangents)
            if functorch.TransformType.Vmap in level_kinds():
                given = (*tangents, *ctx.saved_tensors)
                own = tuple(with_batch_dims_of(leaf, given) for leaf in own)
            return own if several else own[0]

    run.differentiable = True  # pyrefly: ignore[missing-attribute] for who would do it again
    return run


def primals(ctx: Any) -> list[Tensor]:
    """Return the saved tensors in a forward rule, without the tangents that the rule has been given by themselves."""
    return [primal(leaf) for leaf in ctx.saved_tensors]


def primal(leaf: Tensor) -> Tensor:
    """Return a tensor without the tangent of the innermost forward derivative."""
    if not is_variable(leaf):
        return leaf
    if not functorch.is_batchedtensor(leaf):
        return forward_ad.unpack_dual(leaf).primal
    opened, dim = functorch.maybe_get_level(leaf), functorch.maybe_get_bdim(leaf)
    return functorch.add_batch_dim(primal(functorch.get_unwrapped(leaf)), dim, opened)


def alive(leaf: Any) -> Any:
    """Return what a tensor of a closed level holds: torch's operations take it out themselves, its transforms do not.

    A backward pass may run after the level in which its tensors were saved.
    """
    while isinstance(leaf, Tensor) and functorch.is_gradtrackingtensor(leaf) and functorch.maybe_get_level(leaf) < 0:
        leaf = functorch.get_unwrapped(leaf)
    return leaf
