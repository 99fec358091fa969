"""The nuclear norm Σ σᵢ, which is smooth where σᵢ + σⱼ > 0: equal singular values do no harm.

torch differentiates the singular values twice, by formulas that divide by σᵢ² - σⱼ². The first derivative is the polar
factor U Vᴴ; its derivative (Higham 2008, "Functions of Matrices", section 8) divides by σᵢ + σⱼ alone.
"""

from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import differentiable, saved_primals, unwrap_closed_levels

from ._elementwise import with_value


def nuclear_norm(x: Tensor, dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Compute `torch.linalg.matrix_norm(x, "nuc")`; second derivatives along σᵢ = σⱼ = 0 are zero."""
    matrix = (x if dtype is None else x.to(dtype)).movedim(tuple(dim), (-2, -1))
    value = torch.linalg.matrix_norm(matrix.detach(), "nuc")
    norm = with_value(_Nuclear.apply(matrix), value)
    for i in sorted(i % x.ndim for i in dim) if keepdim else ():
        norm = norm.unsqueeze(i)
    return norm


def _svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    return u, s, vh


def _turned(x: Tensor, t: Tensor) -> Tensor:
    """Return the derivative of the polar factor along `t`; this linear map is its own adjoint."""
    u, s, vh = _svd(x)
    inner = u.mH @ t @ vh.mH
    sums = s.unsqueeze(-1) + s.unsqueeze(-2)
    turned = u @ (torch.where(sums == 0, 0.0, inner - inner.mH) / torch.where(sums == 0, 1.0, sums)).to(u.dtype) @ vh
    over = torch.where(s == 0, 0.0, 1 / torch.where(s == 0, 1.0, s)).to(u.dtype).unsqueeze(-1)
    if x.shape[-2] > x.shape[-1]:
        turned = turned + (t @ vh.mH - u @ inner) @ (over * vh)
    if x.shape[-2] < x.shape[-1]:
        turned = turned + (u * over.mT) @ (u.mH @ t - inner @ vh)
    return turned


class _Linear(torch.autograd.Function):
    """The rules of a function of a matrix."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)


class _Polar(_Linear):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        u, _, vh = _svd(x)
        return u @ vh

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _turned(unwrap_closed_levels(ctx.saved_tensors[0]), cotangents[0])

    @staticmethod
    @differentiable
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _turned(saved_primals(ctx)[0], tangents[0])


class _Nuclear(_Linear):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x).sum(-1)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return cotangents[0][..., None, None] * _Polar.apply(unwrap_closed_levels(ctx.saved_tensors[0]))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return (_Polar.apply(saved_primals(ctx)[0]).conj() * tangents[0]).sum((-2, -1)).real
