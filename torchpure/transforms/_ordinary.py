"""Rules for operations whose derivatives are those of the function that they run."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ._arguments import is_variable
from ._levels import torch_jvp, torch_vjp
from ._operation import alive, zeros_for


def ordinary_backward(
    run: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor], needed: Sequence[bool], cotangents: Sequence[Any]
) -> list[Any]:
    """Run a function again and pull cotangents back through it: a part for each tensor, None where none is needed."""
    tensors, cotangents = ([alive(leaf) for leaf in leaves] for leaves in (tensors, cotangents))
    asked = [i for i, leaf in enumerate(tensors) if needed[i] and is_variable(leaf)]
    used = [i for i, part in enumerate(cotangents) if part is not None]
    parts: list[Any] = [None] * len(tensors)
    if not asked or not used:
        return parts

    def chosen(*values: Tensor) -> tuple[Tensor, ...]:
        out = run(*_filled(tensors, asked, values))
        return tuple(out[i] for i in used)

    _, pull = torch_vjp(chosen, *(tensors[i] for i in asked))
    for i, part in zip(asked, pull(tuple(cotangents[i] for i in used)), strict=True):
        parts[i] = part
    return parts


def ordinary_jvp(
    run: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor], tangents: Sequence[Any]
) -> tuple[Any, ...]:
    """Run a function again and push tangents through it: a tangent for each output, None for integers."""
    asked = [i for i, leaf in enumerate(tensors) if is_variable(leaf)]
    given = zeros_for(tensors, tangents)
    kinds: list[bool] = []

    def chosen(*values: Tensor) -> tuple[Tensor, ...]:
        out = run(*_filled(tensors, asked, values))
        kinds[:] = map(is_variable, out)
        return tuple(leaf for leaf in out if is_variable(leaf))

    _, moved = torch_jvp(chosen, tuple(tensors[i] for i in asked), tuple(given[i] for i in asked))
    rest = iter(moved)
    return tuple(next(rest) if kind else None for kind in kinds)


def _filled(tensors: Sequence[Tensor], places: Sequence[int], values: Sequence[Tensor]) -> list[Tensor]:
    every = list(tensors)
    for i, value in zip(places, values, strict=True):
        every[i] = value
    return every
