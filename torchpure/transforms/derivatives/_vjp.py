"""`vjp`: values, and a function that pulls cotangents back."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torchpure._types import Tree
from torchpure.transforms.calls import check_callable
from torchpure.transforms.overrides import explained
from torchpure.transforms.purity import watched

from ._outputs import _Outputs, like
from ._variables import Variables


def vjp(fn: Callable[..., Any], *primals: Tree, has_aux: bool = False) -> Any:
    """Return (fn(*primals), pull): `pull(cotangent)` is a tuple with cotangent · J for each primal.

    The cotangent is shaped like the value; None in it stands for zero. With `has_aux` the result is
    (value, pull, aux).

    Raises:
        TransformError: the cotangent differs from the value in shape or dtype.
        StructureError: or in structure.

    >>> value, pull = vjp(lambda x: x**2, torch.tensor(3.0))
    >>> pull(torch.tensor(1.0))
    (tensor(6.),)
    """
    check_callable("vjp", fn)
    return pulled_back("vjp", fn, primals, has_aux)


def pulled_back(who: str, fn: Callable[..., Any], primals: tuple[Tree, ...], has_aux: bool = False) -> Any:
    """Do what `vjp` does, under another name in errors."""
    variables = Variables(who, fn, tuple(range(len(primals))), primals)
    watch = watched(who, fn, primals)
    outputs = _Outputs(who, fn, has_aux)

    def flat(*values: Tensor) -> Any:
        return outputs.split(fn(*variables.arguments(values)))

    run = partial(torch.func.vjp, flat, has_aux=True)
    with watch.replacing():
        value, flat_pull, (others, aux) = explained(who, fn, run, *variables.leaves)
    watch.check()

    def pull(cotangent: Tree) -> tuple[Tree, ...]:
        parts = like(f"{who}: cotangent", outputs.paths, outputs.match(cotangent), list(value))
        return variables.result(explained(who, fn, flat_pull, tuple(parts)))

    result = (outputs.value(value, others), pull)
    return (*result, outputs.auxiliary(aux)) if has_aux else result
