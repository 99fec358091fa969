"""GaLore (Zhao, Zhang, Chen, Wang, Anandkumar and Tian 2024, arXiv:2403.03507, algorithms 1 and 2)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Mask,
    Number,
    Optimizer,
    active_leaves,
    by_real_parts,
    check_count,
    check_optimizer,
    hint_torch_keywords,
    init_step_count,
    is_differentiable,
    left_singular_vectors,
    recompute_if,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate

from ._adam import scale_by_adam
from ._muon import is_real_matrix


class GaloreState(NamedTuple):
    """State of `scale_by_galore`."""

    step: Step  # float64, shape ()
    inner: Any  # state of the base optimizer, for the projected gradients
    basis: Params  # for each matrix, singular vectors along its longer dimension; None for other leaves


@hint_torch_keywords
def scale_by_galore(
    *,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Number = 1.0,
    base_optimizer: Optimizer[Any] | None = None,
) -> Optimizer[GaloreState]:
    """Apply a base optimizer to gradients projected to a low rank: u = scale P base(Pᵀ g).

    For a matrix with at least as many rows as columns, P has the first `rank` left singular vectors of g; else
    u = scale base(g P) Pᵀ with the right ones. P is recomputed every `update_proj_gap` steps. Parameters are projected
    in the same way. A complex matrix counts as two real ones; other leaves are not projected. The default base
    optimizer is `scale_by_adam`.

    Raises:
        ValueError: `rank` or `update_proj_gap` is not a whole number, at least 1.

    >>> galore, params = scale_by_galore(rank=1), torch.zeros(2, 2)
    >>> galore.update(torch.diag(torch.tensor([3.0, 1.0])), galore.init(params), params)[0].round(decimals=4)
    tensor([[1., 0.],
            [0., 0.]])
    """
    check_count("scale_by_galore", rank=rank, update_proj_gap=update_proj_gap)
    check_optimizer("scale_by_galore", *([] if base_optimizer is None else [base_optimizer]))
    inner = scale_by_adam() if base_optimizer is None else base_optimizer

    def init(params: Params) -> GaloreState:
        basis = tree.map(lambda leaf: _zero_basis(leaf, rank) if is_real_matrix(leaf) else None, params)
        projected = tree.map(
            lambda leaf, p: _projected_zeros(leaf, p) if is_differentiable(leaf) else None, params, basis
        )
        return GaloreState(init_step_count(params), inner.init(projected), basis)

    def update(grads: Grads, state: GaloreState, params: Params) -> tuple[Updates, GaloreState]:
        active_leaves("scale_by_galore", grads, (), params)  # checks shapes
        due = state.step % update_proj_gap == 0
        base = grads if params is None else params
        flags = tree.map(lambda _, g, p: p is not None and g is not None, base, grads, state.basis)
        basis = tree.map(
            lambda _, g, p, flag: recompute_if(due, lambda: _compute_basis(g, rank), p) if flag else p,
            base,
            grads,
            state.basis,
            flags,
        )
        low_rank_grads = tree.map(lambda _, g, p: g if g is None or p is None else _project(g, p), base, grads, basis)
        low_rank_params = None if params is None else tree.map(_project_if_matrix, params, basis)
        low_rank, inner_state = inner.update(low_rank_grads, state.inner, low_rank_params)
        updates = tree.map(
            lambda _, u, g, p: u if u is None or p is None else (scale * _project_back(u, p, g)).to(g.dtype),
            base,
            low_rank,
            grads,
            basis,
        )
        return updates, GaloreState(state.step + 1, inner_state, basis)

    return by_real_parts(init, update)


def _is_tall(leaf: Tensor) -> bool:
    return leaf.shape[0] >= leaf.shape[1]


def _as_float32(leaf: Tensor) -> Tensor:
    return leaf.float() if leaf.dtype in (torch.float16, torch.bfloat16) else leaf


def _zero_basis(leaf: Tensor, rank: int) -> Tensor:
    return _as_float32(leaf).new_zeros(max(leaf.shape), min(rank, *leaf.shape))


def _projected_zeros(leaf: Tensor, basis: Tensor | None) -> Tensor:
    return torch.zeros_like(leaf) if basis is None else _project(torch.zeros_like(leaf), basis)


def _project_if_matrix(leaf: Any, basis: Tensor | None) -> Any:
    return leaf if basis is None else _project(leaf, basis)


def _compute_basis(gradient: Tensor, rank: int) -> Tensor:
    matrix = _as_float32(gradient)
    return left_singular_vectors(matrix if _is_tall(matrix) else matrix.mT, rank)


def _project(gradient: Tensor, basis: Tensor) -> Tensor:
    matrix = gradient.to(basis.dtype)
    return basis.mT @ matrix if _is_tall(matrix) else matrix @ basis


def _project_back(update: Tensor, basis: Tensor, gradient: Tensor) -> Tensor:
    return basis @ update if _is_tall(gradient) else update @ basis.mT


@hint_torch_keywords
def galore(
    learning_rate: ScalarOrSchedule,
    *,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Number = 1.0,
    base_optimizer: Optimizer[Any] | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with GaLore: p ← p − learning_rate (u + weight_decay p), with u of `scale_by_galore`.

    The state of Adam is for projected gradients, so it is smaller.

    Raises:
        ValueError: `rank` or `update_proj_gap` is not a whole number, at least 1, or `learning_rate` or `weight_decay`
            negative.

    >>> opt, params = galore(0.1, rank=1), torch.ones(2, 2)
    >>> opt.step(torch.diag(torch.tensor([3.0, 1.0])), opt.init(params), params)[0].round(decimals=4)
    tensor([[0.9000, 1.0000],
            [1.0000, 1.0000]])
    """
    return chain(
        scale_by_galore(rank=rank, update_proj_gap=update_proj_gap, scale=scale, base_optimizer=base_optimizer),
        add_decayed_weights(weight_decay, mask=mask),
        scale_by_learning_rate(learning_rate),
    )
