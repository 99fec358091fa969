"""Products in which an exact zero wins over an infinity."""

from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import differentiable, saved_primals
from torchpure.transforms.engine import nothing_is_recorded


class _SafeProduct(torch.autograd.Function):
    """a · b, and 0 where a factor is 0, also if the other one is infinite; its derivatives are such products too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return torch.where((a == 0) | (b == 0), 0, a * b)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        a, b = ctx.saved_tensors
        (cotangent,) = cotangents
        if cotangent is None:
            return None, None
        needs_a, needs_b = ctx.needs_input_grad
        return (
            safe_product(cotangent, b.conj()) if needs_a else None,
            safe_product(cotangent, a.conj()) if needs_b else None,
        )

    @staticmethod
    @differentiable
    def jvp(ctx: Any, *tangents: Any) -> Any:
        (a, b), (da, db) = saved_primals(ctx), tangents
        moved = [safe_product(one, two) for one, two in ((da, b), (db, a)) if one is not None]
        return moved[0] if len(moved) == 1 else moved[0] + moved[1]


def safe_product(a: Tensor, b: Tensor) -> Tensor:
    """Return a · b, and 0 where one of them is 0.

    >>> safe_product(torch.tensor([0.0, 2.0]), torch.tensor([torch.inf, 3.0]))
    tensor([0., 6.])
    """
    a, b = torch.broadcast_tensors(a, b)
    dtype = torch.promote_types(a.dtype, b.dtype)
    run = _SafeProduct.forward if nothing_is_recorded() else _SafeProduct.apply
    return run(a.to(dtype), b.to(dtype))
