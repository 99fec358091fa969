"""Losses in plain operations, which have all derivatives.

torch lacks the forward derivative of the gradients of Huber and soft margin losses. The one of `mse_loss` writes to
zero tensors without memory, and the second one of the logistic loss writes in place. The losses of margins between
classes have no forward derivative. `gaussian_nll_loss` reads the sign of a batched variance; `linear_cross_entropy` in
chunks does not run under transforms.
"""

import math
import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure._torch import get_enum, mse_loss
from torchpure.transforms.debug import check
from torchpure.transforms.engine import functorch, level_kinds
from torchpure.transforms.formulas import binary_cross_entropy_with_logits, multi_margin_loss, multilabel_margin_loss

from ._override import Override, Where


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


def _any_given(*options: Any) -> bool:
    """Return whether there are weights, or options by torch's old names."""
    return any(option is not None for option in options)


def _mse_loss(input: Tensor, target: Tensor, *old: Any, reduction: str = "mean", **other: Any) -> Tensor:
    if _any_given(*old, *other.values()) or target.shape != input.shape or reduction not in _REDUCTIONS:
        return F.mse_loss(input, target, *old, reduction=reduction, **other)  # raises, or weights
    if functorch.TransformType.Grad not in level_kinds():
        return _plain_mse_loss(input, target, get_enum(reduction))  # one operation, and right here
    return _reduced((input - target) ** 2, reduction)


def _huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, **other: Any) -> Tensor:
    if _any_given(*other.values()) or target.shape != input.shape or reduction not in _REDUCTIONS or delta <= 0:
        return F.huber_loss(input, target, reduction, delta, **other)
    error = input - target
    size = error.abs()
    return _reduced(torch.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta)), reduction)


def _soft_margin_loss(input: Tensor, target: Tensor, *old: Any, reduction: str = "mean", **other: Any) -> Tensor:
    if _any_given(*old, *other.values()) or reduction not in _REDUCTIONS:
        return F.soft_margin_loss(input, target, *old, reduction=reduction, **other)
    return _reduced(F.softplus(-target * input), reduction)


def _logistic_loss(input: Tensor, target: Tensor, *old: Any, reduction: str = "mean", **other: Any) -> Tensor:
    if _any_given(*old, *other.values()) or target.shape != input.shape or reduction not in _REDUCTIONS:
        return F.binary_cross_entropy_with_logits(input, target, *old, reduction=reduction, **other)
    return binary_cross_entropy_with_logits(input, target, reduction=reduction)


def _multi_margin_loss(input: Tensor, target: Tensor, p: Any = 1, *more: Any, **options: Any) -> Tensor:
    known = input.ndim in {1, 2} and target.shape == input.shape[:-1] and target.dtype == torch.int64 and p in {1, 2}
    known = known and options.get("reduction", "mean") in _REDUCTIONS
    return (multi_margin_loss if known else F.multi_margin_loss)(input, target, p, *more, **options)


def _multilabel_margin_loss(input: Tensor, target: Tensor, *old: Any, reduction: str = "mean", **other: Any) -> Tensor:
    fits = input.ndim in {1, 2} and target.shape == input.shape and target.dtype == torch.int64
    if not fits or _any_given(*old, *other.values()) or reduction not in _REDUCTIONS:
        return F.multilabel_margin_loss(input, target, *old, reduction=reduction, **other)
    return multilabel_margin_loss(input, target, reduction)


def _gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: Any = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Compute `F.gaussian_nll_loss`; the variance is checked by `check`, which works under vmap."""
    if reduction not in _REDUCTIONS:
        return F.gaussian_nll_loss(input, target, var, full, eps, reduction)  # raises
    variance = torch.full_like(input, var) if isinstance(var, float) else var
    if isinstance(var, Tensor) and variance.shape != input.shape and variance.shape == input.shape[:-1]:
        variance = variance.unsqueeze(-1)
    check(variance >= 0, "gaussian_nll_loss: the variance has a negative entry")
    small = (variance < eps).detach()
    raised = torch.where(small, eps - variance.detach(), 0.0)  # as in torch, clamping has derivative one
    variance = variance + raised
    loss = 0.5 * (torch.log(variance) + (input - target) ** 2 / variance)
    loss = loss + 0.5 * math.log(2 * math.pi) if full else loss
    return _reduced(loss, reduction)


def _linear_cross_entropy(*args: Any, options: Any = None, **kwargs: Any) -> Tensor:
    return F.linear_cross_entropy(*args, options=None, **kwargs)  # options ask for chunks


def _restore_weight(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Pass on the weight of `F.l1_loss`, which torch drops when it calls a function mode: its frame still has it."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is _L1_CODE and frame.f_locals["weight"] is not None:
            return args, {**kwargs, "weight": frame.f_locals["weight"]}
        frame = frame.f_back
    return args, kwargs


_L1_CODE = F.l1_loss.__code__
_plain_mse_loss: Any = mse_loss
_REDUCTIONS = frozenset({"mean", "sum", "none"})
OVERRIDES = (
    Override([F.l1_loss], Where.INTERCEPTED, _restore_weight),
    Override([F.mse_loss], Where.FORWARD_MODE, _mse_loss),
    Override([F.huber_loss], Where.FORWARD_MODE, _huber_loss),
    Override([F.soft_margin_loss], Where.FORWARD_MODE, _soft_margin_loss),
    Override([F.binary_cross_entropy_with_logits], Where.FORWARD_MODE, _logistic_loss),
    Override([F.multi_margin_loss], Where.IN_TRANSFORM, _multi_margin_loss),
    Override([F.multilabel_margin_loss], Where.IN_TRANSFORM, _multilabel_margin_loss),
    Override([F.gaussian_nll_loss], Where.ALWAYS, _gaussian_nll_loss),
    Override([F.linear_cross_entropy], Where.ALWAYS, _linear_cross_entropy),
)
