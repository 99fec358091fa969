"""SOAP (Vyas, Morwani, Zhao, Shapira, Brandfonbrener, Janson and Kakade 2024, arXiv:2409.11321, algorithm 3)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Tree, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Mask,
    Number,
    Optimizer,
    bias,
    blend,
    check_count,
    check_positive,
    check_unit,
    count,
    eigenbasis,
    iterated,
    leafwise,
    moments,
    per_leaf,
    refreshed,
    safe_sqrt,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate

Bases = tuple[Tensor, ...]  # one for each dimension; without entries where a dimension is not turned


class SoapState(NamedTuple):
    """State of `scale_by_soap`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares in the eigenbases
    covariance: Tree  # for each leaf, for each dimension, the running mean of g gᵀ
    basis: Tree  # for each leaf, for each dimension, its eigenvectors as columns


def scale_by_soap(
    *,
    b1: Number = 0.95,
    b2: Number = 0.95,
    shampoo_beta: Number | None = None,
    eps: Number = 1e-8,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10000,
    precondition_1d: bool = False,
) -> Optimizer[SoapState]:
    """Scale as Adam does, in the eigenbases of the mean g gᵀ and gᵀ g.

    With Q the eigenvectors along each dimension, g' = Qᵀ g Q and m' = Qᵀ m Q; v ← b2 v + (1 − b2) g'²; the update is
    Q m̂' / (√v̂ + eps) Qᵀ. The first gradient is for Q alone, by an eigendecomposition, and moves nothing: in its own
    eigenbasis it has no other entries than the singular values. Every `precondition_frequency` steps Q turns by a step
    of orthogonal iteration. Dimensions longer than `max_precond_dim` are not turned, nor are
    vectors without `precondition_1d`: there it is Adam.

    Raises:
        ValueError: `b1`, `b2` or `shampoo_beta` (b2 by default) is not in [0, 1), `eps` negative, or a count not whole.

    >>> soap, params, grads = scale_by_soap(), torch.zeros(2, 2), torch.diag(torch.tensor([3.0, 1.0]))
    >>> _, state = soap.update(grads, soap.init(params), params)
    >>> soap.update(grads, state, params)[0].round(decimals=4)
    tensor([[1., 0.],
            [0., 1.]])
    """
    b3 = b2 if shampoo_beta is None else shampoo_beta
    check_unit("scale_by_soap", b1=b1, b2=b2, shampoo_beta=b3)
    check_positive("scale_by_soap", eps=eps)
    check_count("scale_by_soap", precondition_frequency=precondition_frequency, max_precond_dim=max_precond_dim)

    def sizes(leaf: Tensor) -> list[int]:
        turned = leaf.numel() > 0 and leaf.ndim > (0 if precondition_1d else 1)
        return [size if turned and size <= max_precond_dim else 0 for size in leaf.shape]

    def init(params: Params) -> SoapState:
        square = per_leaf(lambda leaf: tuple(leaf.new_zeros(size, size) for size in sizes(leaf)), params)
        start = per_leaf(lambda leaf: tuple(torch.eye(size).to(leaf) for size in sizes(leaf)), params)
        return SoapState(count(params), moments(params), moments(params), square, start)

    def update(grads: Grads, state: SoapState, params: Params) -> tuple[Updates, SoapState]:
        first, due = state.step == 0, (state.step % precondition_frequency == 0) & (state.step > 0)
        step = state.step.clamp(min=1)

        def rule(g: Tensor, m: Tensor, v: Tensor, covariance: Bases, basis: Bases, p: Tensor) -> tuple[Any, ...]:
            covariance = tuple(blend(a, _outer(g, dim), b3) if a.numel() else a for dim, a in enumerate(covariance))
            m = torch.where(first, m, blend(m, g, b1))
            v = torch.where(first, v, blend(v, _turn(g, basis).square(), b2))
            u = _turn(m, basis) / bias(b1, step) / (safe_sqrt(v / bias(b2, step)) + eps)
            back = _turn(u, tuple(q.mT for q in basis))
            basis = refreshed(due, lambda: tuple(map(iterated, covariance, basis)), basis)
            return back, m, v, covariance, refreshed(first, lambda: tuple(map(eigenbasis, covariance)), basis)

        updates, *states = leafwise("scale_by_soap", rule, grads, tuple(state[1:]), params)
        return updates, SoapState(state.step + 1, *states)

    return Optimizer(init, update)


def _outer(g: Tensor, dim: int) -> Tensor:
    flat = g.movedim(dim, 0).reshape(g.shape[dim], -1)
    return flat @ flat.mT


def _turn(leaf: Tensor, basis: Bases) -> Tensor:
    """Multiply each dimension by the transpose of its basis."""
    for dim, q in enumerate(basis):
        if q.numel():
            leaf = (leaf.movedim(dim, -1) @ q).movedim(-1, dim)
    return leaf


def soap(
    learning_rate: ScalarOrSchedule = 3e-3,
    *,
    b1: Number = 0.95,
    b2: Number = 0.95,
    shampoo_beta: Number | None = None,
    eps: Number = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10000,
    precondition_1d: bool = False,
) -> Optimizer[tuple[Any, ...]]:
    """Step as AdamW in the eigenbases of Shampoo.

    p ← p − learning_rate (u + weight_decay p), u as `scale_by_soap` has it.

    Raises:
        ValueError: a number is out of its range.

    >>> opt, params, grads = soap(0.1), torch.eye(2), torch.diag(torch.tensor([3.0, 1.0]))
    >>> params, state = opt.step(grads, opt.init(params), params)
    >>> opt.step(grads, state, params)[0].round(decimals=4)
    tensor([[0.9000, 0.0000],
            [0.0000, 0.9000]])
    """
    scaled = scale_by_soap(
        b1=b1,
        b2=b2,
        shampoo_beta=shampoo_beta,
        eps=eps,
        precondition_frequency=precondition_frequency,
        max_precond_dim=max_precond_dim,
        precondition_1d=precondition_1d,
    )
    return chain(scaled, add_decayed_weights(weight_decay, mask=mask), scale_by_learning_rate(learning_rate))
