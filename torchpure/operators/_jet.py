"""`jet` and `directional`: derivatives of any order along curves and lines."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable, hint_keywords
from torchpure.transforms.derivatives import Argnums
from torchpure.transforms.engine import describe_function, is_variable

from ._point import Point, operator
from ._taylor import taylor
from .rules import Series, explained, scaled


@hint_keywords()
def jet(fn: Callable[..., Any], primals: Sequence[Tree], series: Sequence[Sequence[Tree]]) -> tuple[Tree, Tree]:
    """Return the value of `fn` and the derivatives of `fn(x(t))` at t = 0, of order 1 to K, for curves x(t).

    `primals` has x(0) for each argument, `series` the derivatives x⁽¹⁾(0) … x⁽ᴷ⁾(0) of each, as trees like it.
    The result is (value, terms); `terms` is the value with a list of K tensors in the place of each leaf. The calling
    form and the meaning are those of jax.experimental.jet: derivatives, not divided by factorials.

    Law: the first term of `jet` is the derivative of `jvp`.

    Raises:
        TransformError: not one series for each primal, of one length of at least one; or a shape differs.

    >>> import torch
    >>> one, zero = torch.tensor(1.0), torch.tensor(0.0)
    >>> jet(lambda x: x**3, (torch.tensor(2.0),), ([one, zero, zero],))
    (tensor(8.), [tensor(12.), tensor(12.), tensor(6.)])
    """
    check_callable("jet", fn)
    lengths = _lengths(primals, series)
    point = Point("jet", fn, tuple(range(len(primals))), False, tuple(primals), {})
    rows = [point.match(f"term {k + 1}", tuple(one[k] for one in series)) for k in range(lengths)]
    columns: list[Series] = [
        [scaled(part, 1 / math.factorial(k)) for k, part in enumerate(column, 1)] for column in zip(*rows, strict=True)
    ]
    with explained("jet", fn):
        value, found, _ = taylor(point.call, point.leaves, columns)
    return value, _terms(value, found)


def _lengths(primals: Sequence[Tree], series: Sequence[Sequence[Tree]]) -> int:
    if not isinstance(primals, tuple | list) or not isinstance(series, tuple | list) or len(primals) != len(series):
        raise TransformError(
            f"jet: wanted a tuple of primals and a tuple of series, one for each, got {tree.describe(primals)} and "
            f"{tree.describe(series)}"
        )
    lengths = {len(one) if isinstance(one, tuple | list) else 0 for one in series}
    if len(lengths) != 1 or 0 in lengths:
        raise TransformError(
            f"jet: each series must be a list of the same number of terms, at least one, got lengths {sorted(lengths)}"
        )
    return lengths.pop()


def _terms(value: Tree, found: list[Series]) -> Tree:
    remaining = iter(found)
    leaves, structure = tree.flatten(value)
    terms = [
        [scaled(part, math.factorial(k)) for k, part in enumerate(next(remaining), 1)] if is_variable(leaf) else None
        for leaf in leaves
    ]
    return tree.unflatten(structure, terms)


@hint_keywords()
def directional(
    fn: Callable[..., Any],
    v: Tree,
    order: int = 1,
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    with_value: bool = False,
) -> Callable[..., Any]:
    """Return the function that computes the derivative dᵏ/dtᵏ f(x + t v) at t = 0, of order k.

    `v` is a tree like the point, the result is like the value. All orders come from one pass, in Taylor mode. With
    `with_value` the result is (value, derivatives): a list of those of order 1 to k.

    Law: `directional(f, v)(x) == jvp(f, (x,), (v,))[1]`.

    Raises:
        TransformError: the order is below one, `v` differs from the point in shape, or as for `laplacian`.

    >>> import torch
    >>> directional(lambda x: x.prod(), torch.tensor([1.0, 1.0]), order=2)(torch.tensor([2.0, 3.0]))
    tensor(2.)
    """
    if not isinstance(order, int) or isinstance(order, bool) or order < 1:
        raise TransformError(
            f"directional: the order of the derivative of {describe_function(fn)} must be an int, at least 1, "
            f"got {order!r}"
        )

    def run(point: Point) -> tuple[Tree, Tree]:
        columns: list[Series] = [[part, *[None] * (order - 1)] for part in point.match("the direction", v)]
        value, found, aux = taylor(point.call, point.leaves, columns)
        if with_value:
            return (value, [_term(value, found, k) for k in range(1, order + 1)]), aux
        return _term(value, found, order), aux

    return operator("directional", fn, argnums, has_aux, run)


def _term(value: Tree, found: list[Series], k: int) -> Tree:
    parts: list[Any] = [scaled(one[k - 1], math.factorial(k)) for one in found]
    remaining = iter(parts)
    leaves, structure = tree.flatten(value)
    return tree.unflatten(structure, [next(remaining) if is_variable(leaf) else None for leaf in leaves])
