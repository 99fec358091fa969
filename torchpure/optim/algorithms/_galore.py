"""GaLore (Zhao, Zhang, Chen, Wang, Anandkumar and Tian 2024, arXiv:2403.03507, algorithms 1 and 2)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import Mask, Number, Optimizer, active, check_count, count, has_gradient, principal, refreshed
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate

from ._adam import scale_by_adam
from ._muon import is_matrix


class GaloreState(NamedTuple):
    """State of `scale_by_galore`."""

    step: Step  # float64, shape ()
    inner: Any  # of the base optimizer, for the projected gradients
    basis: Params  # for each matrix, its singular vectors along the longer side; None for the others


def scale_by_galore(
    *,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Number = 1.0,
    base_optimizer: Optimizer[Any] | None = None,
) -> Optimizer[GaloreState]:
    """Let a base optimizer, Adam's scaling by default, see matrices projected on their first singular vectors.

    u = scale P base(Pᵀ g), P the first `rank` left singular vectors of g, if it has no fewer rows than columns, else
    u = scale base(g P) Pᵀ with the right ones; P is taken anew every `update_proj_gap` steps. Leaves that are not real
    matrices go to the base optimizer as they are. It sees the parameters projected in the same way.

    Raises:
        ValueError: `rank` or `update_proj_gap` is not a whole number, at least 1.

    >>> galore, params = scale_by_galore(rank=1), torch.zeros(2, 2)
    >>> galore.update(torch.diag(torch.tensor([3.0, 1.0])), galore.init(params), params)[0].round(decimals=4)
    tensor([[1., 0.],
            [0., 0.]])
    """
    check_count("scale_by_galore", rank=rank, update_proj_gap=update_proj_gap)
    inner = scale_by_adam() if base_optimizer is None else base_optimizer

    def init(params: Params) -> GaloreState:
        basis = tree.map(lambda leaf: _start(leaf, rank) if is_matrix(leaf) else None, params)
        proxies = tree.map(lambda leaf, p: _zeros(leaf, p) if has_gradient(leaf) else None, params, basis)
        return GaloreState(count(params), inner.init(proxies), basis)

    def update(grads: Grads, state: GaloreState, params: Params) -> tuple[Updates, GaloreState]:
        active("scale_by_galore", grads, (), params)  # checks shapes
        due = state.step % update_proj_gap == 0
        used = tree.map(lambda g, p: p is not None and g is not None, grads, state.basis)
        basis = tree.map(
            lambda g, p, use: refreshed(due, lambda: _basis(g, rank), p) if use else p, grads, state.basis, used
        )
        low = tree.map(lambda g, p: g if g is None or p is None else _project(g, p), grads, basis)
        seen = None if params is None else tree.map(_seen, params, basis)
        moves, inner_state = inner.update(low, state.inner, seen)
        updates = tree.map(
            lambda u, g, p: u if u is None or p is None else (scale * _back(u, p, g)).to(g.dtype), moves, grads, basis
        )
        return updates, GaloreState(state.step + 1, inner_state, basis)

    return Optimizer(init, update)


def _is_tall(leaf: Tensor) -> bool:
    return leaf.shape[0] >= leaf.shape[1]


def _wide(leaf: Tensor) -> Tensor:
    return leaf.float() if leaf.dtype in (torch.float16, torch.bfloat16) else leaf


def _start(leaf: Tensor, rank: int) -> Tensor:
    return _wide(leaf).new_zeros(max(leaf.shape), min(rank, *leaf.shape))


def _zeros(leaf: Tensor, basis: Tensor | None) -> Tensor:
    return torch.zeros_like(leaf) if basis is None else _project(torch.zeros_like(leaf), basis)


def _seen(leaf: Any, basis: Tensor | None) -> Any:
    return leaf if basis is None else _project(leaf, basis)


def _basis(gradient: Tensor, rank: int) -> Tensor:
    wide = _wide(gradient)
    return principal(wide if _is_tall(wide) else wide.mT, rank)


def _project(gradient: Tensor, basis: Tensor) -> Tensor:
    wide = gradient.to(basis.dtype)
    return basis.mT @ wide if _is_tall(wide) else wide @ basis


def _back(update: Tensor, basis: Tensor, gradient: Tensor) -> Tensor:
    return basis @ update if _is_tall(gradient) else update @ basis.mT


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
    """Step as Adam on gradients projected to a low rank, whose state is as much smaller.

    p ← p − learning_rate (u + weight_decay p), u as `scale_by_galore` has it.

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
