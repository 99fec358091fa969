"""Losses with numbers and weights that may be tensors: margins, `eps`, smoothing, weights of classes.

torch takes the weights of most losses for constants. The losses are linear in them.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ._log_sums import logsigmoid


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


def smooth_l1_loss(
    input: Tensor, target: Tensor, *old: Any, reduction: str = "mean", beta: Any = 1.0, **_: Any
) -> Tensor:
    """Compute `F.smooth_l1_loss`."""
    size = (input - target).abs()
    return _reduced(torch.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta), reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: Any = 1.0, weight: Any = None) -> Tensor:
    """Compute `F.huber_loss`."""
    size = (input - target).abs()
    losses = torch.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))
    return _reduced(losses if weight is None else losses * weight, reduction)


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: Any = 1.0, *old: Any, reduction: str = "mean", **_: Any
) -> Tensor:
    """Compute `F.hinge_embedding_loss`."""
    far = torch.where(target != 1, (margin - input).clamp(min=0), 0.0)
    return _reduced(far + torch.where(target != -1, input, 0.0), reduction)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: Any = 0, *old: Any, reduction: str = "mean", **_: Any
) -> Tensor:
    """Compute `F.margin_ranking_loss`."""
    return _reduced((margin - target * (input1 - input2)).clamp(min=0), reduction)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: Any = None,
    eps: Any = 1e-8,
    *old: Any,
    reduction: str = "mean",
    **_: Any,
) -> Tensor:
    """Compute `F.poisson_nll_loss`."""
    losses = torch.exp(input) - target * input if log_input else input - target * torch.log(input + eps)
    if full:
        stirling = target * torch.log(target) - target + 0.5 * torch.log(2 * math.pi * target)
        losses = losses + torch.where(target > 1, stirling, 0.0)
    return _reduced(losses, reduction)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: Any = 1,
    margin: Any = 1.0,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Compute `F.multi_margin_loss`."""
    target = target.reshape(input.shape[:-1]).unsqueeze(-1)
    size = (margin - input.gather(-1, target) + input).clamp(min=0)
    others = torch.ones_like(input, dtype=torch.bool).scatter(-1, target, False)
    losses = torch.where(others, size if p == 1 else size**p, 0.0).mean(-1)
    losses = losses if weight is None else losses * weight[target.squeeze(-1)]
    return _reduced(losses, _by_old_names(reduction, size_average, reduce))


def multilabel_margin_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Compute `F.multilabel_margin_loss`: the targets of a row end at its first -1."""
    count = input.shape[-1]
    given = (target < 0).cumsum(-1) == 0
    places = torch.where(given, target, count)
    is_target = torch.zeros_like(torch.cat([input, input[..., :1]], -1), dtype=torch.bool).scatter(-1, places, True)
    of_targets = input.gather(-1, torch.where(given, target, 0)).unsqueeze(-1)
    sizes = (1 - of_targets + input.unsqueeze(-2)).clamp(min=0)
    counted = given.unsqueeze(-1) & ~is_target[..., :count].unsqueeze(-2)
    return _reduced(torch.where(counted, sizes, 0.0).sum((-2, -1)) / count, reduction)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Compute `F.multilabel_soft_margin_loss`."""
    losses = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    losses = losses if weight is None else losses * weight
    return _reduced(losses.mean(-1), _by_old_names(reduction, size_average, reduce))


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Compute `F.binary_cross_entropy`."""
    losses = F.binary_cross_entropy(input, target, reduction="none")
    losses = losses if weight is None else losses * weight
    return _reduced(losses, _by_old_names(reduction, size_average, reduce))


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Tensor:
    """Compute `F.binary_cross_entropy_with_logits`."""
    positive = 1.0 if pos_weight is None else 1 + (pos_weight - 1) * target
    losses = (1 - target) * input - positive * logsigmoid(input)
    losses = losses if weight is None else losses * weight
    return _reduced(losses, _by_old_names(reduction, size_average, reduce))


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Compute `F.nll_loss`: -wₜ xₜ with the target t; the mean is divided by the sum of the wₜ."""
    kept, index, weights = _of_targets(input, target, weight, ignore_index)
    picked = input.gather(_classes(input), index).squeeze(_classes(input))
    losses = torch.where(kept, -picked * weights, 0.0)
    return _weighted_mean(losses, weights, _by_old_names(reduction, size_average, reduce))


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: Any = 0.0,
) -> Tensor:
    """Compute `F.cross_entropy`: smoothing mixes the loss of the target with the mean over all classes."""
    reduction = _by_old_names(reduction, size_average, reduce)
    dim = _classes(input)
    logs, count = torch.log_softmax(input, dim), input.shape[dim]
    per_class = None if weight is None else weight.reshape([-1 if i == dim else 1 for i in range(input.ndim)])
    weighted = logs if per_class is None else logs * per_class
    if target.is_floating_point():  # probabilities
        losses = -(weighted * (target * (1 - label_smoothing) + label_smoothing / count)).sum(dim)
        return losses.sum() / max(losses.numel(), 1) if reduction == "mean" else _reduced(losses, reduction)
    kept, index, weights = _of_targets(input, target, weight, ignore_index)
    sharp, flat = weighted.gather(dim, index).squeeze(dim), weighted.mean(dim)
    losses = torch.where(kept, -(sharp + label_smoothing * (flat - sharp)), 0.0)
    return _weighted_mean(losses, weights, reduction)


def _classes(input: Tensor) -> int:
    return 0 if input.ndim == 1 else 1


def _of_targets(input: Tensor, target: Tensor, weight: Any, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return which targets count, where they stand among the classes, and their weights, zero for the others."""
    kept = target != ignore_index
    index = torch.where(kept, target, 0)
    weights = torch.ones_like(index, dtype=input.dtype) if weight is None else weight[index]
    return kept, index.unsqueeze(_classes(input)), torch.where(kept, weights, 0.0)


def _weighted_mean(losses: Tensor, weights: Tensor, reduction: str) -> Tensor:
    return losses.sum() / weights.sum() if reduction == "mean" else _reduced(losses, reduction)


def _by_old_names(reduction: str, size_average: Any, reduce: Any) -> str:
    """Return the reduction; `size_average` and `reduce` are torch's old names, which win."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"
