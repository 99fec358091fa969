"""Operations whose derivatives are those of the function that they run."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.engine import dense, is_variable, torch_jvp, torch_vjp, unaliased

from ._autograd_rules import alive, differentiable, filled, primals, save, zeros_for
from ._call import Call

Run = Callable[..., tuple[Tensor, ...]]


class Ordinary(torch.autograd.Function):
    """`Ordinary.apply(call, *tensors)` is `call.value(*tensors)`, run again for each derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        return unaliased(call.value(*tensors), tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        save(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        tensors = [alive(leaf) for leaf in ctx.saved_tensors]
        parts = pulled_through(ctx.call.again, tensors, ctx.needs_input_grad[1:], cotangents)
        return (None, *ctx.call.owned(parts, tensors))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        return pushed_through(ctx.call.value, primals(ctx), tangents)


def pulled_through(run: Run, tensors: Sequence[Tensor], needed: Sequence[bool], cotangents: Sequence[Any]) -> list[Any]:
    """Run a function again and pull cotangents back through it: a part for each tensor, None where none is needed."""
    tensors, cotangents = ([alive(leaf) for leaf in leaves] for leaves in (tensors, cotangents))
    asked = [i for i, leaf in enumerate(tensors) if needed[i] and is_variable(leaf)]
    used = [i for i, part in enumerate(cotangents) if part is not None]
    parts: list[Any] = [None] * len(tensors)
    if not asked or not used:
        return parts

    def chosen(*values: Tensor) -> tuple[Tensor, ...]:
        out = run(*filled(tensors, asked, values))
        return tuple(out[i] for i in used)

    _, pull = torch_vjp(chosen, *(tensors[i] for i in asked))
    return filled(parts, asked, pull(tuple(cotangents[i] for i in used)))


def pushed_through(run: Run, tensors: Sequence[Tensor], tangents: Sequence[Any]) -> tuple[Any, ...]:
    """Run a function again and push tangents through it: a tangent for each output, None for integers."""
    asked, chosen, kinds = on_variables(run, tensors)
    given = zeros_for(tensors, tangents)
    _, moved = torch_jvp(chosen, tuple(dense(tensors[i]) for i in asked), tuple(given[i] for i in asked))
    return among(kinds, moved)


def on_variables(run: Run, tensors: Sequence[Tensor]) -> tuple[list[int], Run, list[bool]]:
    """Return which tensors are variables, the function of those, and which of its outputs are, once it has run."""
    asked = [i for i, leaf in enumerate(tensors) if is_variable(leaf)]
    kinds: list[bool] = []

    def chosen(*values: Tensor) -> tuple[Tensor, ...]:
        out = run(*filled(tensors, asked, values))
        kinds[:] = map(is_variable, out)
        return tuple(leaf for leaf in out if is_variable(leaf))

    return asked, chosen, kinds


def among(kinds: Sequence[bool], values: Sequence[Any]) -> tuple[Any, ...]:
    """Put one value in each place of a variable, and None in the others."""
    rest = iter(values)
    return tuple(next(rest) if kind else None for kind in kinds)
