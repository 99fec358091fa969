"""The linear maps inside of functions: at a point, and transposed."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError

from ._arguments import Variables, is_variable
from ._describe import describe_function
from ._jacobian import like, pulled_back
from ._levels import functorch, torch_vjp
from ._operation import check_callable
from ._run import explained


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
    _, push_flat = torch_vjp(
        lambda *cotangents: pull(tree.unflatten(structure, cotangents)), *map(torch.zeros_like, leaves)
    )

    def push(*tangents: Tree) -> Tree:
        if len(tangents) != len(primals):
            raise TransformError(
                f"linearize: wanted {len(primals)} tangents, one a primal, got {len(tangents)}. None stands for zero"
            )
        given = variables.match("linearize: tangents", tangents)
        parts = like("linearize: tangent of", variables.paths, given, variables.leaves)
        return tree.unflatten(structure, explained("linearize", fn, push_flat, tuple(parts)))

    return value, push


def linear_transpose(fn: Callable[..., Any], *primals: Tree) -> Callable[..., tuple[Tree, ...]]:
    """Return the transpose of a linear function: it takes a cotangent to a tuple with one for each primal.

    The primals only tell shapes and dtypes.

    Law: `⟨fn(x), y⟩ == ⟨x, linear_transpose(fn, x)(y)⟩`.

    Raises:
        TransformError: `fn` is not linear: it does not take zero to zero, or 2 a + b to 2 fn(a) + fn(b), at two points.

    >>> linear_transpose(lambda x: torch.tensor([[1.0, 2.0]]) @ x, torch.ones(2))(torch.tensor([3.0]))
    (tensor([3., 6.]),)
    """
    check_callable("linear_transpose", fn)
    variables = Variables("linear_transpose", fn, tuple(range(len(primals))), primals)
    _check_linear(fn, variables)
    zeros = variables.arguments([torch.zeros_like(leaf) for leaf in variables.leaves])
    return pulled_back("linear_transpose", fn, tuple(zeros))[1]


def _check_linear(fn: Callable[..., Any], variables: Variables) -> None:
    """Try a function at zero and at two points; values that only a transform knows are not looked at."""

    def at(make: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
        out = fn(*variables.arguments([make(i, leaf) for i, leaf in enumerate(variables.leaves)]))
        return [leaf.detach() for leaf in tree.leaves(out) if isinstance(leaf, Tensor)]

    def probe(i: int, leaf: Tensor, shift: float) -> Tensor:
        steps = torch.arange(leaf.numel(), device=leaf.device, dtype=torch.float64).reshape(leaf.shape)
        return torch.cos(steps * 1.7 + i + shift).to(leaf.dtype)

    zero = at(lambda i, leaf: torch.zeros_like(leaf))
    if not all(map(is_variable, zero)):
        raise TransformError(
            f"linear_transpose: {describe_function(fn)} must return floating point or complex tensors, "
            f"got {', '.join(map(tree.describe, zero))}"
        )
    one, two = (at(lambda i, leaf, s=shift: probe(i, leaf, s)) for shift in (0.3, 2.1))
    both = at(lambda i, leaf: 2 * probe(i, leaf, 0.3) + probe(i, leaf, 2.1))
    for nought, a, b, whole in zip(zero, one, two, both, strict=True):
        if functorch.is_functorch_wrapped_tensor(whole):
            continue
        slack = 1e4 * torch.finfo(whole.dtype).eps * (1 + whole.abs().max()) if whole.numel() else 0
        if whole.numel() and (nought.abs().max() > slack or (2 * a + b - whole).abs().max() > slack):
            raise TransformError(
                f"linear_transpose: {describe_function(fn)} is not linear. Use vjp for the transpose of its derivative"
            )
