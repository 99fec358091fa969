"""PSGD with Kronecker factors (Li 2015, arXiv:1512.04202; Li 2018, arXiv:1803.09383, section 3.2)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import random
from torchpure._types import Grads, Key, Params, ScalarOrSchedule, Step, Tree, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Mask,
    Number,
    Optimizer,
    active,
    bias,
    blend,
    check_above,
    check_count,
    check_positive,
    check_unit,
    count,
    moments,
    per_leaf,
    refreshed,
    safe_divide,
    safe_norm,
    value_at,
)
from torchpure.optim.transformations import add_decayed_weights, clip_by_block_rms, scale_by_learning_rate

Factors = tuple[Tensor, ...]  # one for each dimension: an upper triangle, shape (n, n), or a diagonal, shape (n,)


class KronState(NamedTuple):
    """State of `scale_by_kron`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    factors: Tree  # for each leaf, for each dimension, a factor Q


def annealed_probability(step: Step) -> Tensor:
    """Return 1 for 500 steps, then exp(−(step − 500) / 1000), and at least 0.03: how often factors are fitted.

    >>> annealed_probability(torch.tensor([0.0, 1500.0, 1e5]))
    tensor([1.0000, 0.3679, 0.0300])
    """
    return torch.exp(-(step - 500) / 1000).clamp(0.03, 1.0)


def scale_by_kron(
    *,
    key: Key,
    b1: Number = 0.9,
    precondition_probability: ScalarOrSchedule = annealed_probability,
    precond_lr: Number = 0.1,
    precond_init_scale: Number = 1.0,
    max_size_triangular: int = 8192,
    min_ndim_triangular: int = 2,
) -> Optimizer[KronState]:
    """Multiply the mean gradient by P = Qᵀ Q, Q a Kronecker product of factors fitted so that P m̂ is white.

    With A = Q m̂ and B = Q⁻ᵀ v, v random, each factor makes a step down the Lie group:
    Qᵢ ← Qᵢ − precond_lr triu(Aᵢ Aᵢᵀ − Bᵢ Bᵢᵀ) Qᵢ / ‖Aᵢ Aᵢᵀ + Bᵢ Bᵢᵀ‖. That happens with `precondition_probability`,
    which may follow a schedule. Dimensions longer than `max_size_triangular`, and leaves of fewer than
    `min_ndim_triangular` dimensions, have diagonal factors.

    Raises:
        ValueError: `b1` is not in [0, 1), `precond_lr` negative, `precond_init_scale` not positive, or
            `max_size_triangular` not a whole number.

    >>> kron, params = scale_by_kron(key=random.key(0), precond_lr=0.0), torch.zeros(2, 2)
    >>> kron.update(torch.eye(2), kron.init(params), params)[0]
    tensor([[1., 0.],
            [0., 1.]])
    """
    check_unit("scale_by_kron", b1=b1)
    check_positive("scale_by_kron", precond_lr=precond_lr)
    check_above("scale_by_kron", 0, precond_init_scale=precond_init_scale)
    check_count("scale_by_kron", max_size_triangular=max_size_triangular)

    def factors(leaf: Tensor) -> Factors:
        shape = tuple(leaf.shape) or (1,)
        scale = precond_init_scale ** (1 / len(shape))
        flat = len(shape) < min_ndim_triangular
        diagonals = [flat or size > max_size_triangular for size in shape]
        return tuple(
            (leaf.new_ones(n) if d else torch.eye(n).to(leaf)) * scale for n, d in zip(shape, diagonals, strict=True)
        )

    def init(params: Params) -> KronState:
        return KronState(count(params), moments(params), per_leaf(factors, params))

    def update(grads: Grads, state: KronState, params: Params) -> tuple[Updates, KronState]:
        (g, m, q, _), restore = active("scale_by_kron", grads, (state.mean, state.factors), params)
        step, now = state.step + 1, random.fold_in(key, state.step.to(torch.int64))
        due = random.uniform(random.fold_in(now, 0), ()) < value_at(precondition_probability, state.step)
        m = [blend(old, new, b1) for old, new in zip(m, g, strict=True)]
        seen = [(leaf / bias(b1, step)).reshape(tuple(leaf.shape) or (1,)) for leaf in m]

        def fitted() -> Any:
            keys = [random.fold_in(now, i + 1) for i in range(len(seen))]
            return [_fitted(leaf, old, k, precond_lr) for leaf, old, k in zip(seen, q, keys, strict=True)]

        q = refreshed(due, fitted, q)
        u = [_whitened(leaf, factor).reshape(old.shape) for leaf, factor, old in zip(seen, q, g, strict=True)]
        return restore(u), KronState(step, restore(m, state.mean), restore(q, state.factors))

    return Optimizer(init, update)


def _along(q: Tensor, leaf: Tensor, dim: int, transposed: bool = False) -> Tensor:
    """Multiply one dimension by a factor."""
    rows = leaf.movedim(dim, -1)
    # rows are multiplied from the right, so the factor itself comes in transposed
    return (rows * q if q.ndim == 1 else rows @ (q if transposed else q.mT)).movedim(-1, dim)


def _whitened(leaf: Tensor, factors: Factors) -> Tensor:
    for dim, q in enumerate(factors):
        leaf = _along(q, _along(q, leaf, dim), dim, transposed=True)
    return leaf


def _fitted(leaf: Tensor, factors: Factors, key: Key, precond_lr: Number) -> Factors:
    """Make one step of all factors of a leaf."""
    if not leaf.numel():
        return tuple(q.clone() for q in factors)
    a, b = leaf, random.normal(key, leaf.shape, dtype=leaf.dtype)
    for dim, q in enumerate(factors):
        a, b = _along(q, a, dim), _divided(q, b, dim)
    return tuple(_moved(q, _rows(a, dim), _rows(b, dim), precond_lr) for dim, q in enumerate(factors))


def _divided(q: Tensor, leaf: Tensor, dim: int) -> Tensor:
    """Multiply one dimension by the inverse of a factor's transpose."""
    if q.ndim == 1:
        return (leaf.movedim(dim, -1) / q).movedim(-1, dim)
    rows = leaf.movedim(dim, 0)
    flat = torch.linalg.solve_triangular(q.mT, rows.reshape(rows.shape[0], -1), upper=False)
    return flat.reshape(rows.shape).movedim(0, dim)


def _rows(leaf: Tensor, dim: int) -> Tensor:
    return leaf.movedim(dim, 0).reshape(leaf.shape[dim], -1)


def _moved(q: Tensor, a: Tensor, b: Tensor, precond_lr: Number) -> Tensor:
    if q.ndim == 1:
        one, two = a.square().sum(1), b.square().sum(1)
        return q - precond_lr * safe_divide((one - two) * q, (one + two).amax())
    one, two = a @ a.mT, b @ b.mT
    return q - precond_lr * safe_divide(torch.triu(one - two) @ q, _size(one + two))


def _size(matrix: Tensor) -> Tensor:
    """Bound the largest eigenvalue of a positive matrix from below, closely: by its longest row."""
    largest = matrix.abs().amax()
    matrix = safe_divide(matrix, largest)
    longest = matrix.square().sum(1).argmax()
    row = (torch.arange(matrix.shape[0], device=matrix.device) == longest).to(matrix) @ matrix
    return largest * safe_divide(safe_norm(row @ matrix), safe_norm(row))


def kron(
    learning_rate: ScalarOrSchedule = 1e-3,
    *,
    key: Key,
    b1: Number = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    precondition_probability: ScalarOrSchedule = annealed_probability,
    precond_lr: Number = 0.1,
    precond_init_scale: Number = 1.0,
    max_size_triangular: int = 8192,
    min_ndim_triangular: int = 2,
    max_update_rms: Number = 1.1,
) -> Optimizer[tuple[Any, ...]]:
    """Step along whitened mean gradients.

    p ← p − learning_rate (clipped(P m̂) + weight_decay p), P as `scale_by_kron` has it. The root mean
    square of each leaf's P m̂ is clipped to `max_update_rms`.

    Raises:
        ValueError: a number is out of its range.

    >>> opt, params = kron(0.1, key=random.key(0), precond_lr=0.0), torch.ones(2)
    >>> opt.step(torch.ones(2), opt.init(params), params)[0]
    tensor([0.9000, 0.9000])
    """
    scaled = scale_by_kron(
        key=key,
        b1=b1,
        precondition_probability=precondition_probability,
        precond_lr=precond_lr,
        precond_init_scale=precond_init_scale,
        max_size_triangular=max_size_triangular,
        min_ndim_triangular=min_ndim_triangular,
    )
    decayed = add_decayed_weights(weight_decay, mask=mask)
    return chain(scaled, clip_by_block_rms(max_update_rms), decayed, scale_by_learning_rate(learning_rate))
