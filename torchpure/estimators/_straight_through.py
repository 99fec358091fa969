"""The straight-through estimator (Bengio, Léonard, Courville 2013, arXiv:1308.3432)."""

from collections.abc import Callable

from torch import Tensor

from torchpure.errors import TransformError
from torchpure.transforms import stop_gradient
from torchpure.transforms.calls import check_callable


def straight_through(
    fn: Callable[[Tensor], Tensor], surrogate: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor], Tensor]:
    """Return the function with the values of `fn` and the derivatives of `surrogate`, by default those of the identity.

    It is biased: the derivatives are those of another function. `fn` may be a sign, a rounding or a quantizer; its
    value must have the shape of the surrogate's.

    Raises:
        TransformError: both values differ in shape.

    >>> import torch
    >>> from torchpure import value_and_grad
    >>> value_and_grad(straight_through(torch.round))(torch.tensor(1.7))
    (tensor(2.), tensor(1.))
    >>> value_and_grad(straight_through(torch.sign, torch.tanh))(torch.tensor(0.0))
    (tensor(0.), tensor(1.))
    """
    check_callable("straight_through", fn)
    if surrogate is not None:
        check_callable("straight_through: surrogate", surrogate)

    def estimator(x: Tensor) -> Tensor:
        value, smooth = stop_gradient(fn(stop_gradient(x))), x if surrogate is None else surrogate(x)
        if value.shape != smooth.shape:
            raise TransformError(
                f"straight_through: fn returned shape {tuple(value.shape)}, the surrogate {tuple(smooth.shape)}: they "
                "must be equal"
            )
        return value + (smooth - stop_gradient(smooth))  # the difference is zero: the value is exact

    return estimator
