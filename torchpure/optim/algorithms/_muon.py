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
    bias,
    blend,
    check_count,
    check_positive,
    check_unit,
    choice,
    count,
    leafwise,
    moments,
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


def _sized(x: Tensor, eps: Number, form: str) -> Tensor:
    """Divide by the Euclidean norm, which no singular value exceeds."""
    return x / (x.norm().clamp(min=eps) if form == "torch" else safe_norm(x) + eps)


def _spectral(x: Tensor, eps: Number, form: str) -> Tensor:
    """Divide by the largest singular value."""
    return x / (torch.linalg.matrix_norm(x, 2) + eps)


def _by_rows(x: Tensor, eps: Number, form: str) -> Tensor:
    """Divide each row by the root of its row's sum in |x xᵀ| (Boissin et al. 2025, arXiv:2512.04632)."""
    return x / safe_sqrt((x @ x.mT).abs().sum(-1, keepdim=True).clamp(min=eps))


def _schatten(x: Tensor, eps: Number, form: str) -> Tensor:
    """Divide by the root of the norm of x xᵀ, which is closer to the largest singular value."""
    return x / safe_sqrt(safe_norm(x @ x.mT).clamp(min=eps))


_PRECONDITIONINGS = {"frobenius": _sized, "spectral": _spectral, "aol": _by_rows, "schatten": _schatten}


def orthogonalize(
    matrix: Tensor,
    *,
    ns_coeffs: Sequence[Any] = QUINTIC,
    ns_steps: int = 5,
    eps: Number = 1e-8,
    preconditioning: str = "frobenius",
    form: Literal["optax", "torch"] = "optax",
) -> Tensor:
    """Bring all singular values near 1 by Newton-Schulz steps: x ← a x + (b x xᵀ + c (x xᵀ)²) x.

    Coefficients are three numbers, or three for each step. The form "torch" takes the steps in bfloat16.

    >>> orthogonalize(torch.diag(torch.tensor([3.0, 1.0]))).diagonal().round(decimals=1)
    tensor([0.8000, 1.1000])
    """
    x = matrix.bfloat16() if form == "torch" else matrix
    tall = x.shape[0] > x.shape[1]
    x = _PRECONDITIONINGS[preconditioning](x.mT if tall else x, eps, form)
    rows = [ns_coeffs] * ns_steps if isinstance(ns_coeffs[0], float | int) else list(ns_coeffs)[-ns_steps:]
    for a, b, c in rows:
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrix.dtype)


def _as_matrix(leaf: Tensor) -> Tensor:
    rows = leaf.shape[0] if leaf.ndim else 1
    return leaf.reshape(rows, leaf.numel() // rows)


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
) -> Optimizer[MuonState]:
    """Replace the mean gradient by the nearest matrix with orthogonal rows or columns.

    m ← beta m + (1 − beta) g; u = orthogonalize(beta m̂ + (1 − beta) ĝ), each corrected for its start at zero, or u of m̂
    alone without `nesterov`. With `adaptive`, u is scaled by ⟨m̂, u⟩. A leaf of more dimensions is the matrix of its
    first against the others, a vector a matrix of one column. The form "torch" corrects nothing, and computes in
    bfloat16.

    Raises:
        ValueError: the form or the preconditioning is unknown, `beta` is not in [0, 1), or there are too few
            coefficients.

    >>> muon, params = scale_by_muon(), torch.ones(2, 2)
    >>> muon.update(torch.diag(torch.tensor([3.0, 1.0])), muon.init(params), params)[0].diagonal().round(decimals=1)
    tensor([0.8000, 1.1000])
    """
    _check_options(form, preconditioning, ns_coeffs, ns_steps)
    check_unit("scale_by_muon", beta=beta)
    check_positive("scale_by_muon", eps=eps)
    options = {"ns_coeffs": ns_coeffs, "ns_steps": ns_steps, "eps": eps, "preconditioning": preconditioning}

    def update(grads: Grads, state: MuonState, params: Params) -> tuple[Updates, MuonState]:
        step = state.step + 1
        now, ahead = (1.0, 1.0) if form == "torch" else (bias(beta, step), bias(beta, step + 1))

        def rule(g: Tensor, m: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
            m = blend(m, g, beta)
            seen = blend(m / ahead, g / now, beta) if nesterov else m / now
            if not g.numel():
                return g.clone(), m
            u = orthogonalize(_as_matrix(seen), form=form, **options).reshape(g.shape)
            return (seen * u).sum() * u if adaptive else u, m

        updates, mean = leafwise("scale_by_muon", rule, grads, (state.mean,), params)
        return updates, MuonState(step, mean)

    return Optimizer(lambda params: MuonState(count(params), moments(params, mu_dtype)), update)


def _check_options(form: str, preconditioning: str, ns_coeffs: Sequence[Any], ns_steps: int) -> None:
    if form not in _FORMS:
        raise ValueError(f"scale_by_muon: the form must be optax or torch, got {form!r}")
    if preconditioning not in _PRECONDITIONINGS:
        known = ", ".join(_PRECONDITIONINGS)
        raise ValueError(f"scale_by_muon: the preconditioning must be one of {known}, got {preconditioning!r}")
    check_count("scale_by_muon", ns_steps=ns_steps)
    if not isinstance(ns_coeffs[0], float | int) and len(ns_coeffs) < ns_steps:
        raise ValueError(f"scale_by_muon: wanted coefficients for {ns_steps} steps, got {len(ns_coeffs)}")


def scale_by_shape(*, consistent_rms: Number | None = None) -> Optimizer[EmptyState]:
    """Scale updates by √max(1, rows / columns), or by √max(rows, columns) consistent_rms.

    A weight is as in torch, outputs × inputs. The second keeps the root mean square of an update the same for all
    shapes; 0.2 is that of Adam (Liu et al. 2025, arXiv:2502.16982, section 2.2).

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

    return stateless_leafwise("scale_by_shape", rule)


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
) -> Optimizer[PartitionState]:
    """Step matrices along the orthogonalised mean gradient, and all other leaves as AdamW does.

    p ← p − learning_rate (√max(1, rows / columns) u + weight_decay p), u as `scale_by_muon` has it. `matrices`
    says which leaves these are (by default the real ones of two dimensions); embeddings and last layers are better left
    to Adam. The form "torch" is that of torch.optim.Muon, whose defaults are eps=1e-7 and weight_decay=0.1.

    Raises:
        ValueError: the form or the preconditioning is unknown, or a number out of its range.

    >>> opt, params = muon(0.1), {"w": torch.eye(2), "b": torch.ones(2)}
    >>> opt.step({"w": torch.eye(2), "b": torch.ones(2)}, opt.init(params), params)[0]["b"]
    tensor([0.8526, 0.8526])
    """
    options = {"ns_coeffs": ns_coeffs, "ns_steps": ns_steps, "beta": beta, "eps": eps, "nesterov": nesterov}
    orthogonal = chain(
        scale_by_muon(**options, mu_dtype=mu_dtype, adaptive=adaptive, preconditioning=preconditioning, form=form),
        scale_by_shape(consistent_rms=consistent_rms),
        add_decayed_weights(weight_decay, mask=weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    scaled = scale_by_adam(
        b1=adam_b1, b2=adam_b2, eps=eps, eps_root=adam_eps_root, mu_dtype=mu_dtype, nesterov=nesterov
    )
    others = chain(
        scaled,
        add_decayed_weights(adam_weight_decay),
        scale_by_learning_rate(learning_rate if adam_learning_rate is None else adam_learning_rate),
    )
    chosen = None if matrices is None else choice("muon", matrices)

    def labels(params: Params) -> Params:
        leaves, structure = tree.flatten(params)
        flags = map(is_matrix, leaves) if chosen is None else chosen(params)
        return tree.unflatten(structure, ["muon" if flag else "adam" for flag in flags])

    return partition({"muon": orthogonal, "adam": others}, labels)


def is_matrix(leaf: Any) -> bool:
    """Tell whether a leaf is a real matrix."""
    return isinstance(leaf, Tensor) and leaf.ndim == 2 and leaf.is_floating_point()
