"""Adam's step on ordinary tensors: copies of parameters and state, and one fused kernel that changes the copies.

Nobody can see the change in place. Under a transform, a tracer or autograd, for tensors that the kernel does not
know, and where a leaf has no gradient, there is no kernel and the formula is used.
"""

from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Rate

from ._base import Kernel
from ._formulas import Number, rate_at

_DTYPES = {torch.float32, torch.float64, torch.bfloat16, torch.float16}
_dtype, _is_cpu, _shape = attrgetter("dtype"), attrgetter("is_cpu"), attrgetter("shape")


def adam_kernel(who: str, rate: Rate, b1: Number, b2: Number, eps: Number, decay: Number) -> Kernel | None:
    """Build the kernel of Adam, with decoupled weight decay where `decay` is not 0."""
    if any(isinstance(value, Tensor) for value in (b1, b2, eps, decay)):
        return None
    fused = torch._fused_adamw_ if decay else torch._fused_adam_
    options: dict[str, Any] = {
        "beta1": b1,
        "beta2": b2,
        "eps": eps,
        "weight_decay": decay,
        "amsgrad": False,
        "maximize": False,
    }

    def kernel(grads: Grads, state: Any, params: Params) -> tuple[Params, Any] | None:
        leaves, structure = tree.flatten(params)
        g, m, v = (tree.align(structure, params, part, who) for part in (grads, state.mean, state.square))
        now = rate_at(rate, state.step)
        scalars = [state.step, now] if isinstance(now, Tensor) else [state.step]
        if not _applies([*leaves, *m, *v], g, scalars):
            return None
        size = len(leaves)
        copies = torch._foreach_clone([*leaves, *m, *v])
        p, m, v = copies[:size], copies[size : 2 * size], copies[2 * size :]
        step = state.step + 1
        fused(p, g, m, v, [], [_kernel_step(step)] * size, lr=_number(now), **options)
        rebuild = partial(tree.unflatten, structure)
        return rebuild(p), type(state)(step, rebuild(m), rebuild(v))

    return kernel


def _applies(copied: list[Any], grads: list[Any], scalars: list[Tensor]) -> bool:
    """Tell whether the kernel may see these: it takes dense memory in order, of one dtype, and asks no questions."""
    every = [*copied, *grads]
    if not copied or not tree.plain([*every, *scalars]):
        return False
    shapes = list(map(_shape, grads))
    return (
        copied[0].dtype in _DTYPES
        and len(set(map(_dtype, every))) == 1
        and (all(map(_is_cpu, every)) or _on_one_cuda(every))
        and all(map(Tensor.is_contiguous, every))
        and list(map(_shape, copied)) == shapes * 3
    )


def _on_one_cuda(leaves: list[Tensor]) -> bool:
    return len({leaf.device for leaf in leaves}) == 1 and leaves[0].is_cuda


def _kernel_step(step: Tensor) -> Tensor:
    return step if step.device.type == "cpu" else step.to(torch.float32)  # the CUDA kernel reads 32 bits


def _number(rate: float | Tensor) -> float | Tensor:
    return rate.item() if isinstance(rate, Tensor) and rate.device.type == "cpu" else rate
