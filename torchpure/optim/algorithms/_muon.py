"""Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers"; Liu et al. 2025, arXiv:2502.16982)."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import PartitionState, chain, partition
from torchpure.optim.core import (
    EmptyState,
    Mask,
    Number,
    Optimizer,
    bias_correction,
    by_real_parts,
    check_count,
    check_nonnegative,
    check_unit_interval,
    ema_update,
    hint_torch_keywords,
    init_moments,
    init_step_count,
    largest_singular_value,
    leafwise,
    mask_fn,
    overflow_scale,
    safe_norm,
    safe_sqrt,
    stateless_leafwise,
)
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate

from ._adam import scale_by_adam

QUINTIC = (3.4445, -4.7750, 2.0315)
_FORMS = ("optax", "torch")


class MuonState(NamedTuple):
    """State of `scale_by_muon`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients


def _by_frobenius_norm(x: Tensor, eps: Number, form: str) -> Tensor:
    """Divide by the Frobenius norm, which is an upper bound of the singular values."""
    return x / (x.norm().clamp(min=eps) if form == "torch" else safe_norm(x) + eps)


def _by_spectral_norm(x: Tensor, eps: Number, form: str) -> Tensor:
    """Divide by the largest singular value."""
    return x / (largest_singular_value(x) + eps)


def _by_row_sums(x: Tensor, eps: Number, form: str) -> Tensor:
    """Divide each row by the root of its row sum in |x xᵀ| (Boissin et al. 2025, arXiv:2512.04632)."""
    return x / safe_sqrt((x @ x.mT).abs().sum(-1, keepdim=True).clamp(min=eps))


def _by_schatten_norm(x: Tensor, eps: Number, form: str) -> Tensor:
    """Divide by the root of the Frobenius norm of x xᵀ, a closer bound of the largest singular value."""
    return x / safe_sqrt(safe_norm(x @ x.mT).clamp(min=eps))


_PRECONDITIONINGS = {
    "frobenius": _by_frobenius_norm,
    "spectral": _by_spectral_norm,
    "aol": _by_row_sums,
    "schatten": _by_schatten_norm,
}


def orthogonalize(
    matrix: Tensor,
    *,
    ns_coeffs: Sequence[Any] = QUINTIC,
    ns_steps: int = 5,
    eps: Number = 1e-8,
    preconditioning: str = "frobenius",
    form: Literal["optax", "torch"] = "optax",
) -> Tensor:
    """Move all singular values close to 1 with Newton-Schulz steps: x ← a x + (b x xᵀ + c (x xᵀ)²) x.

    `ns_coeffs` is (a, b, c), or a sequence of them with one for each step. The form "torch" computes in bfloat16.

    >>> orthogonalize(torch.diag(torch.tensor([3.0, 1.0]))).diagonal().round(decimals=1)
    tensor([0.8000, 1.1000])
    """
    x = matrix.bfloat16() if form == "torch" else matrix
    tall = x.shape[0] > x.shape[1]
    x = x / overflow_scale(x)  # which does not change the singular vectors
    x = _PRECONDITIONINGS[preconditioning](x.mT if tall else x, eps, form)
    rows = [ns_coeffs] * ns_steps if isinstance(ns_coeffs[0], float | int) else list(ns_coeffs)[-ns_steps:]
    for a, b, c in rows:
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrix.dtype)


def _as_matrix(leaf: Tensor) -> Tensor:
    rows = leaf.shape[0] if leaf.ndim else 1
    return leaf.reshape(rows, leaf.numel() // rows)


@hint_torch_keywords
def scale_by_muon(
    *,
    ns_coeffs: Sequence[Any] = QUINTIC,
    ns_steps: int = 5,
    beta: Number = 0.95,
    eps: Number = 1e-8,
    mu_dtype: torch.dtype | None = None,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    form: Literal["optax", "torch"] = "optax",
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[MuonState]:
    """Replace the mean gradient with the nearest matrix that has orthogonal rows or columns.

    m ← beta m + (1 − beta) g; u = orthogonalize(beta m̂ + (1 − beta) ĝ), with bias-corrected m̂ and ĝ, or without
    `nesterov` u = orthogonalize(m̂). With `adaptive`, u is multiplied by its inner product with that mean. A leaf of
    more dimensions is a matrix whose rows are its first dimension; a vector is a matrix of one column. The form "torch"
    has no bias correction, and computes in bfloat16.

    Raises:
        ValueError: `form` or `preconditioning` is unknown, `beta` is not in [0, 1), or there are too few
            coefficients.

    >>> muon, params = scale_by_muon(), torch.ones(2, 2)
    >>> muon.update(torch.diag(torch.tensor([3.0, 1.0])), muon.init(params), params)[0].diagonal().round(decimals=1)
    tensor([0.8000, 1.1000])
    """
    _check_options(form, preconditioning, ns_coeffs, ns_steps)
    check_unit_interval("scale_by_muon", beta=beta)
    check_nonnegative("scale_by_muon", eps=eps)
    options = {"ns_coeffs": ns_coeffs, "ns_steps": ns_steps, "eps": eps, "preconditioning": preconditioning}

    def update(grads: Grads, state: MuonState, params: Params) -> tuple[Updates, MuonState]:
        step = state.step + 1
        correction, next_correction = (
            (1.0, 1.0) if form == "torch" else (bias_correction(beta, step), bias_correction(beta, step + 1))
        )

        def rule(g: Tensor, m: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
            m = ema_update(m, g, beta)
            direction = ema_update(m / next_correction, g / correction, beta) if nesterov else m / correction
            if not g.numel():
                return g.clone(), m
            u = orthogonalize(_as_matrix(direction), form=form, **options).reshape(g.shape)
            return (direction * u).sum() * u if adaptive else u, m

        updates, mean = leafwise("scale_by_muon", rule, grads, (state.mean,), params)
        return updates, MuonState(step, mean)

    def init(params: Params) -> MuonState:
        return MuonState(init_step_count(params), init_moments(params, mu_dtype or accumulator_dtype))

    return by_real_parts(init, update)


def _check_options(form: str, preconditioning: str, ns_coeffs: Sequence[Any], ns_steps: int) -> None:
    if form not in _FORMS:
        raise ValueError(f"scale_by_muon: form must be optax or torch, got {form!r}")
    if preconditioning not in _PRECONDITIONINGS:
        known = ", ".join(_PRECONDITIONINGS)
        raise ValueError(f"scale_by_muon: preconditioning must be one of {known}, got {preconditioning!r}")
    check_count("scale_by_muon", ns_steps=ns_steps)
    if not isinstance(ns_coeffs[0], float | int) and len(ns_coeffs) < ns_steps:
        raise ValueError(f"scale_by_muon: wanted coefficients for {ns_steps} steps, got {len(ns_coeffs)}")


@hint_torch_keywords
def scale_by_shape(*, consistent_rms: Number | None = None) -> Optimizer[EmptyState]:
    """Scale updates by their shape: u = g √max(1, rows / columns), or u = g consistent_rms √max(rows, columns).

    Rows are outputs and columns inputs, as in torch's weights. With `consistent_rms` the root mean square of an update
    is the same for all shapes; 0.2 matches Adam (Liu et al. 2025, arXiv:2502.16982, section 2.2).

    >>> scale_by_shape().update(torch.ones(4, 1), EmptyState(), None)[0].mT
    tensor([[2., 2., 2., 2.]])
    """

    def rule(g: Tensor, p: Any) -> Tensor:
        if not g.numel():
            return g.clone()
        rows, columns = _as_matrix(g).shape
        if consistent_rms is None:
            return g * max(1.0, rows / columns) ** 0.5
        return g * max(rows, columns) ** 0.5 * consistent_rms

    scaled = stateless_leafwise("scale_by_shape", rule)
    return by_real_parts(scaled.init, scaled.rule)


@hint_torch_keywords
def muon(
    learning_rate: ScalarOrSchedule,
    *,
    ns_coeffs: Sequence[Any] = QUINTIC,
    ns_steps: int = 5,
    beta: Number = 0.95,
    eps: Number = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: torch.dtype | None = None,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    form: Literal["optax", "torch"] = "optax",
    adam_b1: Number = 0.9,
    adam_b2: Number = 0.999,
    adam_eps_root: Number = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    matrices: Mask = None,
    consistent_rms: Number | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[PartitionState]:
    """Step matrices with Muon: p ← p − learning_rate (√max(1, rows / columns) u + weight_decay p).

    u is that of `scale_by_muon`. Other leaves step with AdamW. The mask `matrices` selects the leaves for Muon, by
    default the real leaves with two dimensions; for embeddings and last layers, AdamW is better. The form "torch" is
    that of torch.optim.Muon, whose defaults are eps=1e-7 and weight_decay=0.1.

    Raises:
        ValueError: `form` or `preconditioning` is unknown, or a number is out of its range.

    >>> opt, params = muon(0.1), {"w": torch.eye(2), "b": torch.ones(2)}
    >>> opt.step({"w": torch.eye(2), "b": torch.ones(2)}, opt.init(params), params)[0]["b"]
    tensor([0.8526, 0.8526])
    """
    options = {"ns_coeffs": ns_coeffs, "ns_steps": ns_steps, "beta": beta, "eps": eps, "nesterov": nesterov}
    for_matrices = chain(
        scale_by_muon(
            **options,
            mu_dtype=mu_dtype,
            adaptive=adaptive,
            preconditioning=preconditioning,
            form=form,
            accumulator_dtype=accumulator_dtype,
        ),
        scale_by_shape(consistent_rms=consistent_rms),
        add_decayed_weights(weight_decay, mask=weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    scaled = scale_by_adam(
        b1=adam_b1,
        b2=adam_b2,
        eps=eps,
        eps_root=adam_eps_root,
        mu_dtype=mu_dtype,
        nesterov=nesterov,
        accumulator_dtype=accumulator_dtype,
    )
    for_others = chain(
        scaled,
        add_decayed_weights(adam_weight_decay),
        scale_by_learning_rate(learning_rate if adam_learning_rate is None else adam_learning_rate),
    )
    matrix_mask = None if matrices is None else mask_fn("muon", matrices)

    def labels(params: Params) -> Params:
        leaves, structure = tree.flatten(params)
        flags = map(is_real_matrix, leaves) if matrix_mask is None else matrix_mask(params)
        return tree.unflatten(structure, ["muon" if flag else "adam" for flag in flags])

    return partition({"muon": for_matrices, "adam": for_others}, labels)


def is_real_matrix(leaf: Any) -> bool:
    """Return whether a leaf is a real tensor with two dimensions."""
    return isinstance(leaf, Tensor) and leaf.ndim == 2 and leaf.is_floating_point()
