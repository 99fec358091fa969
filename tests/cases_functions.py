"""The table of transforms, functions of functions: each on one function, and what must come out.

The key is the transform's name, or "name, variant". See `testing.TransformCase` for the fields.
"""

from typing import Any

import torch
from torch import Tensor

import torchpure as tp
from torchpure.testing import TransformCase

X = torch.tensor([0.3, -0.7], dtype=torch.float64)
T = torch.tensor(0.4, dtype=torch.float64)
WHOLE = torch.tensor(3)  # no derivative exists along whole numbers


def cube(t: Tensor) -> Tensor:
    return t**3


def waves(x: Tensor) -> Tensor:
    return torch.sin(2 * x)


def quartic(x: Tensor) -> Tensor:
    return (x**4).sum()


def product(x: Tensor, *, power: int = 2) -> Tensor:
    return x**power * torch.cos(x)


def _row_by_row(x: Tensor) -> Tensor:
    return torch.stack([row.square() * row.cos() for row in x.unbind()])


def _same(x: Tensor) -> Tensor:
    return x.cos() * x * x


def _slopes(x: Tensor) -> Tensor:
    return torch.diag(2 * torch.cos(2 * x))


def _with_jvp(fn: Any) -> Any:
    made = tp.custom_jvp(fn)
    made.defjvp(lambda primals, tangents: tp.jvp(fn, primals, tangents))
    return made


def _with_vjp(fn: Any) -> Any:
    made = tp.custom_vjp(fn)
    made.defvjp(lambda x: (fn(x), x), lambda x, cotangent: tp.vjp(fn, x)[1](cotangent))
    return made


def _with_vmap(fn: Any) -> Any:
    made = tp.custom_vmap(fn)
    made.def_vmap(lambda size, batched, x: (tp.vmap(fn)(x), True))
    return made


def _plain(transform: Any) -> TransformCase:
    """Make the case of a transform whose result computes what the function does."""
    return TransformCase(transform=transform, fn=product, inputs=(X,), reference=_same)


FUNCTIONS: dict[str, TransformCase] = {
    "custom_jvp": _plain(_with_jvp),
    "custom_vjp": _plain(_with_vjp),
    "custom_vmap": _plain(_with_vmap),
    "grad": TransformCase(transform=tp.grad, fn=cube, inputs=(T,), reference=lambda t: 3 * t * t, bad=[(WHOLE,)]),
    "hessian": TransformCase(
        transform=tp.hessian,
        fn=quartic,
        inputs=(X,),
        reference=lambda x: torch.diag(12 * x * x),
        bad=[(WHOLE,)],
    ),
    "jacfwd": TransformCase(transform=tp.jacfwd, fn=waves, inputs=(X,), reference=_slopes, bad=[(WHOLE,)]),
    "jacrev": TransformCase(transform=tp.jacrev, fn=waves, inputs=(X,), reference=_slopes, bad=[(WHOLE,)]),
    "jit": _plain(tp.jit),
    "pure": _plain(tp.pure),
    "remat": _plain(tp.remat),
    "value_and_grad": TransformCase(
        transform=tp.value_and_grad, fn=cube, inputs=(T,), reference=lambda t: (t * t * t, 3 * t * t), bad=[(WHOLE,)]
    ),
    "vmap": TransformCase(
        transform=tp.vmap,
        fn=product,
        inputs=(torch.stack([X, 2 * X, X + 1]),),
        reference=_row_by_row,
        bad=[(T,), (X, X[:1]), ("x",)],
    ),
}

SKIPPED: dict[str, tuple[str, ...]] = {
    "value_and_grad": ("nests_with_itself",),  # its result is a pair, of which there is no gradient
}
