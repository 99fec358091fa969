"""What is wanted of the second derivatives along directions d_1 … d_D: a bilinear form of first derivatives.

The form of a composition g(h(x)) is g' on the form of h, plus the form of g along the first derivatives of h. So a form
needs to know only which pairs of directions it has, and how their products are added up. Each value carries an `Entry`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Form:
    """Σ over pairs: `collapse(left(J) · right(J))`, for first derivatives J of shape (D, *value)."""

    left: Callable[[Tensor], Tensor]  # (D, *value) -> (K, *value)
    right: Callable[[Tensor], Tensor]
    collapse: Callable[[Tensor], Tensor]  # (K, *value) -> (*value) or (K, *value)
    summed: bool  # whether `collapse` adds up the pairs
    symmetric: bool = True  # left(A)·right(B) and right(A)·left(B) collapse to the same
    of_tensors: bool = False  # whether it has weights, which belong to some level
    pairs: tuple[tuple[int, int], ...] | None = None  # which pairs are wanted; None: each direction with itself

    def cross(self, product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
        """Return the form of a product of two functions with these first derivatives, without their own forms."""
        once = self.collapse(product(self.left(a), self.right(b)))
        return 2 * once if self.symmetric else once + self.collapse(product(self.right(a), self.left(b)))


def _same(jacobian: Tensor) -> Tensor:
    return jacobian


def _sum(pairs: Tensor) -> Tensor:
    return pairs.sum(0)


TRACE = Form(_same, _same, _sum, summed=True)  # Σ ∂²/∂d_i²
DIAGONAL = Form(_same, _same, _same, summed=False)  # each ∂²/∂d_i²


def weighted(weights: Tensor) -> Form:
    """Return Σ w_i ∂²/∂d_i² for weights of shape (D,), and Σ w_ij ∂²/∂d_i∂d_j for weights of shape (D, D)."""
    if weights.ndim == 1:
        return Form(lambda jac: _scaled(weights, jac), _same, _sum, summed=True, of_tensors=True)
    matrix = (weights + weights.mT) / 2  # second derivatives are symmetric

    def mixed(jacobian: Tensor) -> Tensor:
        flat = jacobian.reshape(jacobian.shape[0], -1)
        return (matrix.to(flat.dtype) @ flat).reshape(jacobian.shape)

    return Form(mixed, _same, _sum, summed=True, of_tensors=True)


def _scaled(weights: Tensor, jacobian: Tensor) -> Tensor:
    return weights.reshape(-1, *(1,) * (jacobian.ndim - 1)) * jacobian


def of_pairs(pairs: Sequence[tuple[int, int]]) -> Form:
    """Return each ∂²/∂d_i∂d_j of these pairs of directions."""
    chosen = tuple((i, j) for i, j in pairs)
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    squares = first == second

    def rows(numbers: list[int]) -> Callable[[Tensor], Tensor]:
        return lambda jac: torch.stack([jac[number] for number in numbers])

    return Form(rows(first), rows(second), _same, summed=False, symmetric=squares, pairs=chosen)


class Entry:
    """The derivatives of one value. First derivatives that nothing asks for, as after the last layer, are not taken."""

    is_dense = True  # all rows are stored
    is_identity = False  # the value is the point, one vector; no rows are stored

    def __init__(self, first: Tensor | Callable[[], Tensor], second: Tensor | None):
        self._first = first
        self._second = second

    @property
    def second(self) -> Tensor | None:
        """Second derivatives, of shape (*value) or (K, *value); None: zero."""
        return self._second

    @property
    def first(self) -> Tensor:
        """First derivatives, of shape (D, *value)."""
        if not isinstance(self._first, Tensor):
            self._first = self._first()
        return self._first
