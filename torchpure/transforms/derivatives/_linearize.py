"""The linear maps inside of functions: at a point, and transposed."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._torch import FakeTensor
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable
from torchpure.transforms.engine import (
    describe_function,
    functorch,
    innermost,
    is_variable,
    kinds,
    torch_vjp,
)
from torchpure.transforms.overrides import explained

from ._outputs import like
from ._variables import Variables
from ._vjp import pulled_back


def linearize(fn: Callable[..., Any], *primals: Tree) -> tuple[Any, Callable[..., Any]]:
    """Return (fn(*primals), push): `push(*tangents)` is J · tangents, and runs nothing of `fn` again.

    The backward pass of the backward pass: each push costs about one backward pass. A tangent that is None stands for
    zero.

    Law: `linearize(fn, *primals)[1](*tangents) == jvp(fn, primals, tangents)[1]`, inside of other transforms too.

    Raises:
        TransformError: tangents differ from the primals in number, shape or dtype, or `fn` returns other things than
            floating point or complex tensors.

    >>> value, push = linearize(lambda x: x**2, torch.tensor(3.0))
    >>> value, push(torch.tensor(1.0)), push(torch.tensor(2.0))
    (tensor(9.), tensor(6.), tensor(12.))
    """
    check_callable("linearize", fn)
    variables = Variables("linearize", fn, tuple(range(len(primals))), primals)

    @wraps(fn, updated=())
    def flat(*values: Tensor) -> Any:
        return fn(*variables.arguments(values))

    value, pull = pulled_back("linearize", flat, tuple(variables.leaves))
    leaves, structure = tree.flatten(value)
    if not all(map(is_variable, leaves)):
        raise TransformError(
            f"linearize: {describe_function(fn)} must return floating point or complex tensors, "
            f"got {tree.describe(value)}"
        )
    somewhere = [torch.full_like(leaf, 2.0**-10) for leaf in leaves]  # a rule may take a logarithm of its cotangent
    _, push_flat = explained(
        "linearize", fn, torch_vjp, lambda *cotangents: pull(tree.unflatten(structure, cotangents)), *somewhere
    )

    def push(*tangents: Tree) -> Tree:
        if len(tangents) != len(primals):
            raise TransformError(
                f"linearize: wanted {len(primals)} tangents, one a primal, got {len(tangents)}. None stands for zero"
            )
        given = variables.match("linearize: tangents", tangents)
        parts = like("linearize: tangent of", variables.paths, given, variables.leaves)
        if functorch.TransformType.Vmap in kinds():  # torch maps some rules only with all their arguments
            parts = [torch.zeros_like(leaf) + part for leaf, part in zip(variables.leaves, parts, strict=True)]
        return tree.unflatten(structure, explained("linearize", fn, push_flat, tuple(parts)))

    return value, push


def linear_transpose(fn: Callable[..., Any], *primals: Tree) -> Callable[..., tuple[Tree, ...]]:
    """Return the transpose of a linear function: it takes a cotangent to a tuple with one for each primal.

    The primals only tell shapes and dtypes.

    Law: `⟨fn(x), y⟩ == ⟨x, linear_transpose(fn, x)(y)⟩`.

    Raises:
        TransformError: `fn` is not linear: it does not take zero to zero, a + b to fn(a) + fn(b), or multiples to
            multiples, at a few points. In a traced program the numbers of arguments are not known, and not tried.

    >>> linear_transpose(lambda x: torch.tensor([[1.0, 2.0]]) @ x, torch.ones(2))(torch.tensor([3.0]))
    (tensor([3., 6.]),)
    """
    check_callable("linear_transpose", fn)
    variables = Variables("linear_transpose", fn, tuple(range(len(primals))), primals)
    _check_linear(fn, variables)
    zeros = variables.arguments([torch.zeros_like(leaf) for leaf in variables.leaves])
    return pulled_back("linear_transpose", fn, tuple(zeros))[1]


def _check_linear(fn: Callable[..., Any], variables: Variables) -> None:
    """Try a function at zero, at two points, at their sum and at multiples; numbers that a tracer lacks are not known.

    Multiples by powers of two are exact, whatever precision is used inside: no magnitude is too small to be looked at.
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
_ROUNDING = {torch.float32: 2e-3, torch.complex64: 2e-3, **_COARSE}  # in sums of many terms; others: 1e-5


def _probe(first: float, second: float, i: int, leaf: Tensor) -> Tensor:
    """Return first · a + second · b, for points with a few bits a number and opposite signs in each place."""
    places = torch.arange(leaf.numel(), device=leaf.device).reshape(leaf.shape) + i
    signs = 1.0 - 2.0 * (places * places % 7 % 2)
    a, b = (1 + places % 5) / 8, (2 + places % 3) / 4 + 1 / 16
    probe = signs * (first * a - second * b)
    return (probe * (1 + 0.5j) if leaf.is_complex() else probe).to(leaf.dtype)


def _differ(got: Tensor, wanted: Tensor, rounds: bool) -> bool:
    """Tell whether values differ by more than rounding does, where both are finite."""
    known = got.isfinite() & wanted.isfinite()
    error, magnitude = (torch.where(known, part.abs(), 0.0) for part in (got - wanted, wanted))
    magnitude = torch.maximum(magnitude, torch.where(known, got.abs(), 0.0))
    least = rounds * (4 if got.dtype in _COARSE else 100) * torch.finfo(got.dtype).eps  # of terms that cancel
    return _holds(error > _ROUNDING.get(got.dtype, 1e-5) * magnitude.amax() + least) if got.numel() else False


def _holds(condition: Tensor) -> bool:
    """Tell whether a condition holds anywhere, for any member."""
    known = innermost(condition)
    return not isinstance(known, FakeTensor) and bool(known.any())
