"""Modules whose parameters have estimated gradients."""

import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from torchpure.compat.torchopt.diff.zero_order.decorator import Method, zero_order
from torchpure.compat.torchopt.modules import reparametrize
from torchpure.compat.torchopt.typing import Numeric, Samplable, Size

__all__ = ["ZeroOrderGradientModule"]


class ZeroOrderGradientModule(nn.Module, Samplable):
    """A module whose `forward` returns a tensor of shape (), and whose `sample(shape)` draws noise.

    The options stand after the name of the class: `class Net(ZeroOrderGradientModule, method="antithetic",
    num_samples=8)`.
    """

    def __init_subclass__(cls, method: Method = "naive", num_samples: int = 1, sigma: float = 1.0) -> None:
        """Give `forward` its estimated gradients."""
        super().__init_subclass__()
        enable_zero_order_gradients(cls, method=method, num_samples=num_samples, sigma=sigma)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the value.

        Raises:
            NotImplementedError: the subclass has none.
        """
        raise NotImplementedError

    def sample(self, sample_shape: Size = Size()) -> Tensor | Sequence[Numeric]:  # noqa: B008
        """Draw noise of this shape.

        Raises:
            NotImplementedError: the subclass has none.
        """
        raise NotImplementedError


def enable_zero_order_gradients(cls: Any, method: Method = "naive", num_samples: int = 1, sigma: float = 1.0) -> Any:
    """Wrap the `forward` of a class.

    Raises:
        TypeError: it is wrapped already.
    """
    forward = cls.forward
    if getattr(forward, "__zero_order_gradients_enabled__", False):
        raise TypeError("Zero-order gradient estimation is already enabled for the `forward` method.")

    @functools.wraps(forward)
    def estimated(self: Any, *input: Any, **kwargs: Any) -> Tensor:
        named = dict(self.named_parameters())
        if not named:
            raise RuntimeError("The module has no parameters.")

        @zero_order(self.sample, method=method, num_samples=num_samples, sigma=sigma)
        def value(tensors: Any) -> Tensor:
            with reparametrize(self, zip(named, tensors, strict=True)):
                return forward(self, *input, **kwargs)

        return value(tuple(named.values()))

    estimated.__zero_order_gradients_enabled__ = True  # pyrefly: ignore[missing-attribute]
    cls.forward = estimated
    return cls
