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
    bias_correction,
    by_real_parts,
    check_count,
    check_nonnegative,
    check_unit_interval,
    eigenbasis,
    ema_update,
    hint_torch_keywords,
    init_moments,
    init_per_leaf,
    init_step_count,
    leafwise,
    orthogonal_iteration,
    overflow_scale,
    recompute_if,
    safe_sqrt,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate

Bases = tuple[Tensor, ...]  # one for each dimension; empty where the dimension is not rotated


class SoapState(NamedTuple):
    """State of `scale_by_soap`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares in the eigenbases
    covariance: Tree  # for each leaf and each dimension, the running mean of g gᵀ
    basis: Tree  # for each leaf and each dimension, the eigenvectors of the covariance as columns


@hint_torch_keywords
def scale_by_soap(
    *,
    b1: Number = 0.95,
    b2: Number = 0.95,
    shampoo_beta: Number | None = None,
    eps: Number = 1e-8,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10000,
    precondition_1d: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[SoapState]:
    """Scale with Adam in the eigenbases of the running means of g gᵀ and gᵀ g: u = Q (m̂' / (√v̂ + eps)) Qᵀ.

    The columns of Q are the eigenvectors of each dimension. g' = Qᵀ g Q, m' = Qᵀ m Q and v ← b2 v + (1 − b2) g'². The
    first step computes Q by an eigendecomposition, and its update is 0: in its own eigenbasis, a gradient has only
    its singular values. Every `precondition_frequency` steps, one step of orthogonal iteration updates Q. Dimensions
    longer than `max_precond_dim` are not rotated, and vectors only with `precondition_1d`: for these u is that of Adam.
    A complex leaf counts as two real ones.

    Raises:
        ValueError: `b1`, `b2` or `shampoo_beta` (by default b2) is not in [0, 1), `eps` is negative, or a count is not
            a whole number, at least 1.

    >>> soap, params, grads = scale_by_soap(), torch.zeros(2, 2), torch.diag(torch.tensor([3.0, 1.0]))
    >>> _, state = soap.update(grads, soap.init(params), params)
    >>> soap.update(grads, state, params)[0].round(decimals=4)
    tensor([[1., 0.],
            [0., 1.]])
    """
    b3 = b2 if shampoo_beta is None else shampoo_beta
    check_unit_interval("scale_by_soap", b1=b1, b2=b2, shampoo_beta=b3)
    check_nonnegative("scale_by_soap", eps=eps)
    check_count("scale_by_soap", precondition_frequency=precondition_frequency, max_precond_dim=max_precond_dim)

    def sizes(leaf: Tensor) -> list[int]:
        rotates = leaf.numel() > 0 and leaf.ndim > (0 if precondition_1d else 1)
        return [size if rotates and size <= max_precond_dim else 0 for size in leaf.shape]

    def init(params: Params) -> SoapState:
        covariance = init_per_leaf(
            lambda leaf: tuple(leaf.new_zeros(size, size) for size in sizes(leaf)), params, accumulator_dtype
        )
        basis = init_per_leaf(
            lambda leaf: tuple(torch.eye(size).to(leaf) for size in sizes(leaf)), params, accumulator_dtype
        )
        return SoapState(
            init_step_count(params),
            init_moments(params, accumulator_dtype),
            init_moments(params, accumulator_dtype),
            covariance,
            basis,
        )

    def update(grads: Grads, state: SoapState, params: Params) -> tuple[Updates, SoapState]:
        is_first, due = state.step == 0, (state.step % precondition_frequency == 0) & (state.step > 0)
        step = state.step.clamp(min=1)

        def rule(g: Tensor, m: Tensor, v: Tensor, covariance: Bases, basis: Bases, p: Tensor) -> tuple[Any, ...]:
            covariance = tuple(
                ema_update(a, _covariance(g, dim), b3) if a.numel() else a for dim, a in enumerate(covariance)
            )
            m = torch.where(is_first, m, ema_update(m, g, b1))
            v = torch.where(is_first, v, ema_update(v, _rotate(g, basis).square(), b2))
            u = _rotate(m, basis) / bias_correction(b1, step) / (safe_sqrt(v / bias_correction(b2, step)) + eps)
            direction = _rotate(u, tuple(q.mT for q in basis))
            basis = recompute_if(due, lambda: tuple(map(orthogonal_iteration, covariance, basis)), basis)
            basis = recompute_if(is_first, lambda: tuple(map(eigenbasis, covariance)), basis)
            return direction, m, v, covariance, basis

        updates, *states = leafwise("scale_by_soap", rule, grads, tuple(state[1:]), params)
        return updates, SoapState(state.step + 1, *states)

    return by_real_parts(init, update)


def _covariance(g: Tensor, dim: int) -> Tensor:
    flat = g.movedim(dim, 0).reshape(g.shape[dim], -1)
    size, limit = overflow_scale(flat), torch.finfo(flat.dtype).max / flat.shape[0]
    flat = flat / size
    return (flat @ flat.mT * size * size).clamp(-limit, limit)  # squares that overflow have eigenvectors


def _rotate(leaf: Tensor, basis: Bases) -> Tensor:
    """Multiply each dimension by the transpose of its basis."""
    for dim, q in enumerate(basis):
        if q.numel():
            leaf = (leaf.movedim(dim, -1) @ q).movedim(-1, dim)
    return leaf


@hint_torch_keywords
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
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with SOAP: p ← p − learning_rate (u + weight_decay p), with u of `scale_by_soap`.

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
        accumulator_dtype=accumulator_dtype,
    )
    return chain(scaled, add_decayed_weights(weight_decay, mask=mask), scale_by_learning_rate(learning_rate))
