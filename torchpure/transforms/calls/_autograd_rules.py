"""Helpers for rules of `autograd.Function`: saved tensors, zeros, transposition, nested derivatives."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import forward_ad, is_fwd_grad_enabled, set_fwd_grad_enabled
from torchpure.transforms.engine import (
    functorch,
    innermost,
    is_variable,
    level_kinds,
    torch_vjp,
    unaliased,
    with_batch_dims_of,
)


def save_for_rules(ctx: Any, call: Any, tensors: Sequence[Tensor], output: Sequence[Tensor]) -> None:
    """Save in an autograd context what the forward and the backward rule need."""
    ctx.call = call
    ctx.mark_non_differentiable(*(out for out in output if not is_variable(out)))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def needs_rules(tensors: Sequence[Tensor]) -> bool:
    """Tell whether a transform or autograd may ask for the rules of an operation on these tensors."""
    return (
        functorch.peek_interpreter_stack() is not None
        or (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tensors))
        or (forward_ad._current_level >= 0 and is_fwd_grad_enabled())
    )


def replace_at(values: Sequence[Any], positions: Sequence[int], replacements: Sequence[Any]) -> list[Any]:
    """Return the values as a list, with replacements at some positions."""
    result = list(values)
    for i, replacement in zip(positions, replacements, strict=True):
        result[i] = replacement
    return result


def instantiate_zeros(tensors: Sequence[Tensor], parts: Sequence[Any]) -> list[Any]:
    """Replace None by zeros where the tensor is a variable; None stays for integers and the like."""
    return [
        torch.zeros_like(template) if part is None and is_variable(template) else part
        for part, template in zip(parts, tensors, strict=True)
    ]


def transpose_linear(
    linear: Callable[..., Sequence[Tensor]], templates: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Tensor]:
    """Apply the transpose of a linear function to cotangents; its inputs are like the templates."""
    _, pull_back = torch_vjp(
        lambda *values: tuple(linear(*values)), *(torch.zeros_like(template) for template in templates)
    )
    return list(pull_back(tuple(cotangents)))


def differentiable(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Make the forward rule of an operation differentiable: torch runs such a rule without derivatives.

    An in-place write to the result also changes its tangent. So a tangent that the rule returns unchanged is copied,
    and each tangent gets the batch dimensions that its result may have. A tangent that the rule changes in place is
    not copied: so torch wants it for a function that changes its argument.
    """

    @wraps(rule)
    def run(ctx: Any, *tangents: Any) -> Any:
        with torch.enable_grad(), set_fwd_grad_enabled(True):
            versions = list(map(_version, tangents))
            out = rule(ctx, *tangents)
            is_sequence = isinstance(out, tuple | list)
            unchanged = [leaf for leaf, old in zip(tangents, versions, strict=True) if _version(leaf) == old]
            result = unaliased(out if is_sequence else (out,), unchanged)
            if functorch.TransformType.Vmap in level_kinds():
                sources = (*tangents, *ctx.saved_tensors)
                result = tuple(with_batch_dims_of(leaf, sources) for leaf in result)
            return result if is_sequence else result[0]

    run.differentiable = True  # pyrefly: ignore[missing-attribute] a mark: do not wrap it twice
    return run


def _version(leaf: Any) -> int:
    leaf = innermost(leaf) if isinstance(leaf, Tensor) else None
    return 0 if leaf is None or leaf.is_inference() else leaf._version


def saved_primals(ctx: Any) -> list[Tensor]:
    """Return the saved tensors in a forward rule, without the tangents: torch passes those as arguments."""
    return [primal(leaf) for leaf in ctx.saved_tensors]


def primal(leaf: Tensor) -> Tensor:
    """Return a tensor without the tangent of the innermost forward derivative."""
    if not is_variable(leaf):
        return leaf
    if not functorch.is_batchedtensor(leaf):
        return forward_ad.unpack_dual(leaf).primal
    vmap_level, dim = functorch.maybe_get_level(leaf), functorch.maybe_get_bdim(leaf)
    if vmap_level < _forward_level():  # captured from outside of the derivative: it has no tangent of that level
        return leaf
    return functorch.add_batch_dim(primal(functorch.get_unwrapped(leaf)), dim, vmap_level)


def _forward_level() -> int:
    """Return the number of the innermost level of a forward derivative; 0 if there is none."""
    levels = functorch.get_interpreter_stack() or []
    return max((one.level() for one in levels if one.key() == functorch.TransformType.Jvp), default=0)


def unwrap_closed_levels(leaf: Any) -> Any:
    """Remove the wrappers of closed levels from a tensor; return everything else as it is.

    A backward pass may run after the level of its saved tensors is closed. torch's operations then remove the wrapper,
    but its transforms do not.
    """
    while isinstance(leaf, Tensor) and functorch.is_gradtrackingtensor(leaf) and functorch.maybe_get_level(leaf) < 0:
        leaf = functorch.get_unwrapped(leaf)
    return leaf
