"""`jvp`: values and directional derivatives in one pass."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable, hint_keywords
from torchpure.transforms.engine import describe_function, has_tangent, in_dual_level, refuse_nested, run_jvp
from torchpure.transforms.overrides import overridden, paused_overrides, run_transform
from torchpure.transforms.purity import watched

from ._outputs import Outputs, check_like
from ._variables import ALL_ARGUMENTS, Variables


@hint_keywords()
def jvp(
    fn: Callable[..., Any],
    primals: tuple[Tree, ...],
    tangents: tuple[Tree, ...],
    has_aux: bool = False,
    *,
    strict: bool = False,
) -> Any:
    """Push tangents forward: return (fn(*primals), J · tangents); with `has_aux` also aux.

    A tangent of None means zero. With `strict`, a result that does not depend on the primals is an error.

    Raises:
        TransformError: tangents differ from the primals in shape or dtype, or a result is independent of the primals.
        StructureError: tangents differ from the primals in structure.

    >>> jvp(lambda x: x**2, (torch.tensor(3.0),), (torch.tensor(1.0),))
    (tensor(9.), tensor(6.))
    """
    check_callable("jvp", fn)
    for name, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, tuple | list):
            raise TransformError(
                f"jvp: {name} must be a tuple, one entry an argument, got {tree.describe(given)}: for one write (x,)"
            )
    if len(primals) != len(tangents):
        raise TransformError(
            f"jvp: wanted {len(primals)} tangents, one a primal, got {len(tangents)}. None stands for zero"
        )
    variables = Variables("jvp", fn, ALL_ARGUMENTS, tuple(primals))
    watch = watched("jvp", fn, tuple(primals))
    parts = variables.match("jvp: tangents", tuple(tangents))
    try:
        directions = check_like("jvp: tangent of", variables.paths, parts, variables.leaves)
    except RuntimeError:
        refuse_nested("jvp", fn, variables.leaves)
        raise
    outputs, run_fn = Outputs("jvp", fn, has_aux), overridden(fn)

    def flat(*values: Tensor) -> Any:
        parts, others = outputs.split(run_fn(*variables.arguments(values)))
        if strict:
            _check_dependent(fn, parts, outputs)
        return parts, others

    leaves = tuple(variables.leaves)
    run = in_dual_level(_run, leaves)
    with paused_overrides():
        value, moved, (others, aux) = run_transform("jvp", fn, run, flat, leaves, tuple(directions))
    watch.check()
    outputs.refuse_hidden_tensors()
    result = (outputs.value(value, others), outputs.derivative(moved))
    return (*result, outputs.auxiliary(aux)) if has_aux else result


def _check_dependent(fn: Callable[..., Any], parts: Sequence[Tensor], outputs: Outputs) -> None:
    for number, part in enumerate(parts):
        if not has_tangent(part):
            raise TransformError(
                f"jvp: the result of {describe_function(fn)} {outputs.paths()[number]} does not depend on the primals: "
                "return what does, or leave out strict=True"
            )


def _run(fn: Callable[..., Any], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Any:
    if is_dynamo_compiling():
        return torch.func.jvp(fn, primals, tangents, has_aux=True)
    sizes: list[int] = []

    def flat(*values: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        parts, (others, aux) = fn(*values)
        sizes.append(len(others))
        return parts, [*others, *aux]

    value, moved, rest = run_jvp(flat, primals, tangents)
    return value, moved, (rest[: sizes[0]], rest[sizes[0] :])
