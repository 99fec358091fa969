"""`linearize` and `linear_transpose`: the derivative at a point as a linear function, and the transpose of one."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._torch import FakeTensor
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable, hint_keywords, unwrap_closed_levels
from torchpure.transforms.context import current
from torchpure.transforms.engine import (
    describe_function,
    functorch,
    innermost,
    is_variable,
    level_kinds,
    torch_vjp,
)
from torchpure.transforms.overrides import run_transform

from ._outputs import check_like
from ._variables import Variables
from ._vjp import vjp_for


@hint_keywords(has_aux="call fn once more for aux, or use jvp(fn, primals, tangents, has_aux=True)")
def linearize(fn: Callable[..., Any], *primals: Tree) -> tuple[Any, Callable[..., Any]]:
    """Return (fn(*primals), push): `push(*tangents)` is J · tangents, without another run of `fn`.

    Push is the backward pass of the backward pass, and costs about one backward pass. A tangent of None means zero.

    Law: `linearize(fn, *primals)[1](*tangents) == jvp(fn, primals, tangents)[1]`, inside of other transforms too.

    Raises:
        TransformError: tangents differ from the primals in number, shape or dtype, or `fn` returns anything but
            floating point or complex tensors.

    >>> value, push = linearize(lambda x: x**2, torch.tensor(3.0))
    >>> value, push(torch.tensor(1.0)), push(torch.tensor(2.0))
    (tensor(9.), tensor(6.), tensor(12.))
    """
    check_callable("linearize", fn)
    variables = Variables("linearize", fn, tuple(range(len(primals))), primals)
    body = current.body

    @wraps(fn, updated=())
    def flat(*values: Tensor) -> Any:
        return fn(*variables.arguments(values))

    # a backward rule may get tensors of closed levels, and what torch records of them cannot be differentiated twice
    value, pull = vjp_for("linearize", flat, tuple(map(unwrap_closed_levels, variables.leaves)))
    leaves, structure = tree.flatten(value)
    if not all(map(is_variable, leaves)):
        raise TransformError(
            f"linearize: {describe_function(fn)} must return floating point or complex tensors, "
            f"got {tree.describe(value)}"
        )
    somewhere = [torch.full_like(leaf, 2.0**-10) for leaf in leaves]  # not zero: a rule may take its logarithm
    _, push_flat = run_transform(
        "linearize", fn, torch_vjp, lambda *cotangents: pull(tree.unflatten(structure, cotangents)), *somewhere
    )

    def push(*tangents: Tree) -> Tree:
        if current.body is not body:  # as in `vjp_for`
            return linearize(fn, *primals)[1](*tangents)
        if len(tangents) != len(primals):
            raise TransformError(
                f"linearize: wanted {len(primals)} tangents, one a primal, got {len(tangents)}. None stands for zero"
            )
        given = variables.match("linearize: tangents", tangents)
        parts = check_like("linearize: tangent of", variables.paths, given, variables.leaves)
        if functorch.TransformType.Vmap in level_kinds():  # some vmap rules of torch need every argument batched
            parts = [torch.zeros_like(leaf) + part for leaf, part in zip(variables.leaves, parts, strict=True)]
        return tree.unflatten(structure, run_transform("linearize", fn, push_flat, tuple(parts)))

    return value, push


def linear_transpose(fn: Callable[..., Any], *primals: Tree) -> Callable[..., tuple[Tree, ...]]:
    """Return the transpose of a linear function: it maps a cotangent to a tuple with one cotangent for each primal.

    Of the primals only shapes and dtypes are used.

    Law: `⟨fn(x), y⟩ == ⟨x, linear_transpose(fn, x)(y)⟩`.

    Raises:
        TransformError: `fn` is not linear. It is tried at a few points: fn(0) = 0, fn(a + b) = fn(a) + fn(b),
            fn(c a) = c fn(a). A traced program has no numbers, so nothing is tried there.

    >>> linear_transpose(lambda x: torch.tensor([[1.0, 2.0]]) @ x, torch.ones(2))(torch.tensor([3.0]))
    (tensor([3., 6.]),)
    """
    check_callable("linear_transpose", fn)
    variables = Variables("linear_transpose", fn, tuple(range(len(primals))), primals)
    _check_linear(fn, variables)
    zeros = variables.arguments([torch.zeros_like(leaf) for leaf in variables.leaves])
    return vjp_for("linear_transpose", fn, tuple(zeros))[1]


def _check_linear(fn: Callable[..., Any], variables: Variables) -> None:
    """Try a function at zero, at two points, at their sum and at multiples.

    Multiples by powers of two are exact in every precision, so they are compared at any magnitude.
    """

    def at(make: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
        out = fn(*variables.arguments([make(i, leaf) for i, leaf in enumerate(variables.leaves)]))
        return [leaf.detach() for leaf in tree.leaves(out) if isinstance(leaf, Tensor)]

    zero = at(lambda i, leaf: torch.zeros_like(leaf))
    if not all(map(is_variable, zero)):
        raise TransformError(
            f"linear_transpose: {describe_function(fn)} must return floating point or complex tensors, "
            f"got {', '.join(map(tree.describe, zero))}"
        )
    one, two = at(partial(_probe, 1.0, 0.0)), at(partial(_probe, 0.0, 1.0))
    tried = [(at(partial(_probe, 1.0, 1.0)), [a + b for a, b in zip(one, two, strict=True)], True)]
    narrow = any(leaf.dtype in _COARSE for leaf in [*variables.leaves, *zero])
    factors = (2.0**-4, 2.0**4 if narrow else 2.0**30)
    tried.extend((at(partial(_probe, factor, 0.0)), [factor * a for a in one], False) for factor in factors)
    differs = any(_differ(x, y, rounds) for got, wanted, rounds in tried for x, y in zip(got, wanted, strict=True))
    if differs or any(_holds(leaf.isfinite() & (leaf != 0)) for leaf in zero):
        raise TransformError(
            f"linear_transpose: {describe_function(fn)} is not linear. Use vjp for the transpose of its derivative"
        )


_COARSE = {torch.float16: 2e-2, torch.bfloat16: 1e-1}
_ROUNDING = {
    torch.float32: 2e-3,
    torch.complex64: 2e-3,
    **_COARSE,
}  # relative, in sums of many terms; other dtypes: 1e-5


def _probe(first: float, second: float, i: int, leaf: Tensor) -> Tensor:
    """Return first · a + second · b; the entries of a and b have few bits, and opposite signs in each place."""
    n = torch.arange(leaf.numel(), device=leaf.device).reshape(leaf.shape) + i
    signs = 1.0 - 2.0 * (n * n % 7 % 2)
    a, b = (1 + n % 5) / 8, (2 + n % 3) / 4 + 1 / 16
    probe = signs * (first * a - second * b)
    return (probe * (1 + 0.5j) if leaf.is_complex() else probe).to(leaf.dtype)


def _differ(got: Tensor, wanted: Tensor, rounds: bool) -> bool:
    """Return whether values differ by more than rounding, where both are finite."""
    known = got.isfinite() & wanted.isfinite()
    error, magnitude = (torch.where(known, part.abs(), 0.0) for part in (got - wanted, wanted))
    magnitude = torch.maximum(magnitude, torch.where(known, got.abs(), 0.0))
    least = rounds * (4 if got.dtype in _COARSE else 100) * torch.finfo(got.dtype).eps  # of terms that cancel
    return _holds(error > _ROUNDING.get(got.dtype, 1e-5) * magnitude.amax() + least) if got.numel() else False


def _holds(condition: Tensor) -> bool:
    """Tell whether a condition holds anywhere, for any member."""
    known = innermost(condition)
    return not isinstance(known, FakeTensor) and bool(known.any())
