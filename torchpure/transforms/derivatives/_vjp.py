"""`vjp`: the value, and a function that pulls cotangents back."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torchpure._types import Tree
from torchpure.transforms.calls import check_callable, hint_keywords
from torchpure.transforms.context import current
from torchpure.transforms.engine import refuse_nested
from torchpure.transforms.overrides import overridden, paused_overrides, run_transform
from torchpure.transforms.purity import watched

from ._outputs import Outputs, check_like
from ._variables import Variables


@hint_keywords()
def vjp(fn: Callable[..., Any], *primals: Tree, has_aux: bool = False) -> Any:
    """Return (fn(*primals), pull): `pull(cotangent)` is a tuple with cotangent · J for each primal.

    The cotangent has the structure of the value; None in it means zero. With `has_aux` the result is
    (value, pull, aux).

    Raises:
        TransformError: the cotangent differs from the value in shape or dtype.
        StructureError: the cotangent differs from the value in structure.

    >>> value, pull = vjp(lambda x: x**2, torch.tensor(3.0))
    >>> pull(torch.tensor(1.0))
    (tensor(6.),)
    """
    check_callable("vjp", fn)
    return vjp_for("vjp", fn, primals, has_aux)


def vjp_for(caller: str, fn: Callable[..., Any], primals: tuple[Tree, ...], has_aux: bool = False) -> Any:
    """Compute `vjp` for another function of the library, whose name the errors show."""
    outputs, run_fn = Outputs(caller, fn, has_aux), overridden(fn)
    body = current.body

    def flat(*values: Tensor) -> Any:
        return outputs.split(run_fn(*variables.arguments(values)))

    run = partial(torch.func.vjp, flat, has_aux=True)
    with paused_overrides():
        variables = Variables(caller, fn, tuple(range(len(primals))), primals)
        refuse_nested(caller, fn, variables.leaves, jagged=True)
        watch = watched(caller, fn, primals)
        value, flat_pull, (others, aux) = run_transform(caller, fn, run, *variables.leaves)
        watch.check()
        outputs.refuse_hidden_tensors()

    def pull(cotangent: Tree) -> tuple[Tree, ...]:
        if current.body is not body:  # an operation calls it, which sees captures of functions, and none of a graph
            return vjp_for(caller, fn, primals, has_aux)[1](cotangent)
        parts = check_like(f"{caller}: cotangent", outputs.paths, outputs.match(cotangent), list(value))
        return variables.result(run_transform(caller, fn, flat_pull, tuple(parts)))

    result = (outputs.value(value, others), pull)
    return (*result, outputs.auxiliary(aux)) if has_aux else result
