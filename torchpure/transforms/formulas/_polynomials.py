"""Orthogonal polynomials, differentiated through their recurrences (DLMF 18.9). The degree is a constant."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure.errors import TransformError
from torchpure.transforms.engine import innermost, is_differentiated

_special = torch.special


class _Family(NamedTuple):
    first: Callable[[Tensor], Tensor]  # the polynomial of degree 1
    next: Callable[[Tensor, int, Tensor, Tensor], Tensor]  # of degree k + 1, from x, k and those of k − 1 and k


def _chebyshev(shift: float) -> _Family:
    """Return a family of Chebyshev polynomials: they differ in that of degree 1."""
    first = {0.5: lambda x: x}.get(shift, lambda x: 2 * x + shift)
    return _Family(first, lambda x, k, lower, upper: 2 * x * upper - lower)


_FAMILIES = {
    "chebyshev_polynomial_t": _chebyshev(0.5),
    "chebyshev_polynomial_u": _chebyshev(0.0),
    "chebyshev_polynomial_v": _chebyshev(-1.0),
    "chebyshev_polynomial_w": _chebyshev(1.0),
    "hermite_polynomial_h": _Family(lambda x: 2 * x, lambda x, k, lower, upper: 2 * (x * upper - k * lower)),
    "hermite_polynomial_he": _Family(lambda x: x, lambda x, k, lower, upper: x * upper - k * lower),
    "laguerre_polynomial_l": _Family(
        lambda x: 1 - x, lambda x, k, lower, upper: ((2 * k + 1 - x) * upper - k * lower) / (k + 1)
    ),
    "legendre_polynomial_p": _Family(
        lambda x: x, lambda x, k, lower, upper: ((2 * k + 1) * x * upper - k * lower) / (k + 1)
    ),
}


def _by_recurrence(family: _Family, x: Tensor, n: Any, largest: int) -> Tensor:
    """Return the polynomial of degree `n`; zero for a negative degree, as torch has it."""
    lower, upper = torch.ones_like(x), family.first(x)
    out = torch.where(torch.as_tensor(n == 0), lower, 0.0)
    for k in range(1, largest + 1):
        out = torch.where(torch.as_tensor(n == k), upper, out)
        lower, upper = upper, family.next(x, k, lower, upper)
    return out


def _largest(name: str, n: Any) -> int:
    """Return the largest degree: it decides how many steps there are."""
    if not isinstance(n, Tensor):
        return int(n)
    if is_differentiated(n):
        raise TransformError(f"{name} has no derivative in its degree: use tp.stop_gradient on it")
    return int(innermost(n).max()) if n.numel() else 0


def _function(operation: Any, name: str, shifted: bool) -> Callable[[Any, Any], Tensor]:
    family = _FAMILIES[name]

    def run(input: Any, n: Any) -> Tensor:
        largest = _largest(operation.__name__.removeprefix("special_"), n)
        if not isinstance(input, Tensor) or not input.is_floating_point():
            return operation(input, n)
        degree = (
            n.trunc() if isinstance(n, Tensor) and n.is_floating_point() else n if isinstance(n, Tensor) else int(n)
        )
        followed = _by_recurrence(family, 2 * input - 1 if shifted else input, degree, largest)
        return operation(input.detach(), n) + (followed - followed.detach())  # torch's value, with derivatives

    return run


def _operations() -> dict[Any, Callable[..., Tensor]]:
    found = {getattr(_special, name): _function(getattr(_special, name), name, False) for name in _FAMILIES}
    for name in _FAMILIES:
        operation = getattr(_special, f"shifted_{name}", None)
        if operation is not None:
            found[operation] = _function(operation, name, True)
    return found


POLYNOMIALS = _operations()  # by torch's functions
