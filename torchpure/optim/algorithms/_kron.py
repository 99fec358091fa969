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
    active_leaves,
    bias_correction,
    by_real_parts,
    check_above,
    check_count,
    check_nonnegative,
    check_unit_interval,
    ema_update,
    evaluate_schedule,
    hint_torch_keywords,
    init_moments,
    init_per_leaf,
    init_step_count,
    overflow_scale,
    recompute_if,
    safe_divide,
    safe_norm,
)
from torchpure.optim.transformations import add_decayed_weights, clip_by_block_rms, scale_by_learning_rate

Factors = tuple[Tensor, ...]  # one for each dimension: upper triangular, shape (n, n), or a diagonal, shape (n,)


class KronState(NamedTuple):
    """State of `scale_by_kron`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    factors: Tree  # for each leaf, for each dimension, a factor Q


def annealed_probability(step: Step) -> Tensor:
    """Return the probability of an update of the factors: min(1, max(0.03, exp(−(step − 500) / 1000))).

    >>> annealed_probability(torch.tensor([0.0, 1500.0, 1e5]))
    tensor([1.0000, 0.3679, 0.0300])
    """
    return torch.exp(-(step - 500) / 1000).clamp(0.03, 1.0)


@hint_torch_keywords
def scale_by_kron(
    *,
    key: Key,
    b1: Number = 0.9,
    precondition_probability: ScalarOrSchedule = annealed_probability,
    precond_lr: Number = 0.1,
    precond_init_scale: Number = 1.0,
    max_size_triangular: int = 8192,
    min_ndim_triangular: int = 2,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[KronState]:
    """Precondition the mean gradient: u = Qᵀ Q m̂, where Q is a Kronecker product with one factor for each dimension.

    The factors are fitted so that u is white: with A = Q m̂, B = Q⁻ᵀ v and random v,
    Qᵢ ← Qᵢ − precond_lr triu(Aᵢ Aᵢᵀ − Bᵢ Bᵢᵀ) Qᵢ / ‖Aᵢ Aᵢᵀ + Bᵢ Bᵢᵀ‖. Each step does so with probability
    `precondition_probability`, which may be a schedule. Factors are diagonal for dimensions longer than
    `max_size_triangular`, and for leaves with fewer than `min_ndim_triangular` dimensions.

    Raises:
        ValueError: `b1` is not in [0, 1), `precond_lr` negative, `precond_init_scale` not positive, or
            `max_size_triangular` not a whole number.
        TypeError: `key` is not a key.

    >>> kron, params = scale_by_kron(key=random.key(0), precond_lr=0.0), torch.zeros(2, 2)
    >>> kron.update(torch.eye(2), kron.init(params), params)[0]
    tensor([[1., 0.],
            [0., 1.]])
    """
    random.check_key(key, "scale_by_kron")
    check_unit_interval("scale_by_kron", b1=b1)
    check_nonnegative("scale_by_kron", precond_lr=precond_lr)
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
        return KronState(
            init_step_count(params),
            init_moments(params, accumulator_dtype),
            init_per_leaf(factors, params, accumulator_dtype),
        )

    def update(grads: Grads, state: KronState, params: Params) -> tuple[Updates, KronState]:
        (g, m, q, _), rebuild = active_leaves("scale_by_kron", grads, (state.mean, state.factors), params)
        step, step_key = state.step + 1, random.fold_in(key, state.step.to(torch.int64))
        due = random.uniform(random.fold_in(step_key, 0), ()) < evaluate_schedule(precondition_probability, state.step)
        m = [ema_update(old, new, b1) for old, new in zip(m, g, strict=True)]
        debiased = [(leaf / bias_correction(b1, step)).reshape(tuple(leaf.shape) or (1,)) for leaf in m]

        def fit() -> Any:
            keys = [random.fold_in(step_key, i + 1) for i in range(len(debiased))]
            return [_fit_factors(leaf, old, k, precond_lr) for leaf, old, k in zip(debiased, q, keys, strict=True)]

        q = recompute_if(due, fit, q)
        u = [_whiten(leaf, factor).reshape(old.shape) for leaf, factor, old in zip(debiased, q, g, strict=True)]
        return rebuild(u), KronState(step, rebuild(m, state.mean), rebuild(q, state.factors))

    return by_real_parts(init, update)


def _multiply_dim(q: Tensor, leaf: Tensor, dim: int, transposed: bool = False) -> Tensor:
    """Multiply one dimension by a factor, or by its transpose."""
    rows = leaf.movedim(dim, -1)
    # rows are multiplied from the right, so the product with the factor itself needs its transpose
    return (rows * q if q.ndim == 1 else rows @ (q if transposed else q.mT)).movedim(-1, dim)


def _whiten(leaf: Tensor, factors: Factors) -> Tensor:
    for dim, q in enumerate(factors):
        leaf = _multiply_dim(q, _multiply_dim(q, leaf, dim), dim, transposed=True)
    return leaf


def _fit_factors(leaf: Tensor, factors: Factors, key: Key, precond_lr: Number) -> Factors:
    """Update all factors of a leaf once."""
    if not leaf.numel():
        return tuple(q.clone() for q in factors)
    a, b = leaf, random.normal(key, leaf.shape, dtype=leaf.dtype)
    for dim, q in enumerate(factors):
        a, b = _multiply_dim(q, a, dim), _solve_dim(q, b, dim)
    return tuple(_update_factor(q, _unfold(a, dim), _unfold(b, dim), precond_lr) for dim, q in enumerate(factors))


def _solve_dim(q: Tensor, leaf: Tensor, dim: int) -> Tensor:
    """Multiply one dimension by the inverse of a factor's transpose."""
    if q.ndim == 1:
        return (leaf.movedim(dim, -1) / q).movedim(-1, dim)
    rows = leaf.movedim(dim, 0)
    flat = torch.linalg.solve_triangular(q.mT, rows.reshape(rows.shape[0], -1), upper=False)
    return flat.reshape(rows.shape).movedim(0, dim)


def _unfold(leaf: Tensor, dim: int) -> Tensor:
    return leaf.movedim(dim, 0).reshape(leaf.shape[dim], -1)


def _update_factor(q: Tensor, a: Tensor, b: Tensor, precond_lr: Number) -> Tensor:
    size = overflow_scale(a, b)  # a common factor cancels
    a, b = a / size, b / size
    if q.ndim == 1:
        one, two = a.square().sum(1), b.square().sum(1)
        return q - precond_lr * safe_divide((one - two) * q, (one + two).amax())
    one, two = a @ a.mT, b @ b.mT
    return q - precond_lr * safe_divide(torch.triu(one - two) @ q, _spectral_norm_bound(one + two))


def _spectral_norm_bound(matrix: Tensor) -> Tensor:
    """Return a tight lower bound of the largest eigenvalue of a positive matrix, from its row of largest norm."""
    largest = matrix.abs().amax()
    matrix = safe_divide(matrix, largest)
    longest = matrix.square().sum(1).argmax()
    row = (torch.arange(matrix.shape[0], device=matrix.device) == longest).to(matrix) @ matrix
    return largest * safe_divide(safe_norm(row @ matrix), safe_norm(row))


@hint_torch_keywords
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
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with PSGD: p ← p − learning_rate (clip(u) + weight_decay p), with u of `scale_by_kron`.

    The root mean square of each leaf's u is clipped to `max_update_rms`.

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
        accumulator_dtype=accumulator_dtype,
    )
    decayed = add_decayed_weights(weight_decay, mask=mask)
    return chain(scaled, clip_by_block_rms(max_update_rms), decayed, scale_by_learning_rate(learning_rate))
