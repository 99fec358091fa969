"""Gradients of smoothed functions from their values (Nesterov and Spokoiny 2017, equations 22 to 30).

With noise z, the gradient of E f(x + σ z) is estimated by the mean of w z. The weight w is f(x + σ z) / σ (naive),
(f(x + σ z) − f(x)) / σ (forward), or (f(x + σ z) − f(x − σ z)) / 2σ (antithetic).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from torchpure.compat.torchopt import pytree
from torchpure.compat.torchopt.typing import Numeric, Samplable, SampleFunc, Size

Method: TypeAlias = Literal["naive", "forward", "antithetic"]


class WrappedSamplable(Samplable):
    """A function of a shape, as a distribution."""

    def __init__(self, sample_fn: SampleFunc) -> None:
        """Take the function."""
        self.sample_fn = sample_fn

    def sample(self, sample_shape: Size = Size()) -> Tensor | Sequence[Numeric]:  # noqa: B008
        """Call the function."""
        return self.sample_fn(sample_shape)


class _Estimator(NamedTuple):
    fn: Callable[..., Any]
    distribution: Any
    method: Method
    argnums: tuple[int, ...]
    num_samples: int
    sigma: float


def zero_order(
    distribution: SampleFunc | Samplable,
    method: Method = "naive",
    argnums: int | tuple[int, ...] = (0,),
    num_samples: int = 1,
    sigma: float = 1.0,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Give a function, which need not be differentiable, an estimated gradient with respect to the arguments `argnums`.

    Its value is a tensor of shape (). `distribution` is a function of a shape, or has a method `sample(shape)`; noise
    is drawn in the backward pass, `num_samples` times.

    Raises:
        TypeError: the distribution is neither.

    >>> @zero_order(torch.ones, method="forward", sigma=0.5)
    ... def square(x):
    ...     return x**2
    >>> x = torch.tensor(1.0, requires_grad=True)
    >>> torch.autograd.grad(square(x), x)[0]
    tensor(2.5000)
    """
    assert method in ("naive", "forward", "antithetic")
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not isinstance(distribution, Samplable):
        if not callable(distribution):
            raise TypeError("`distribution` must be a callable or an instance of `Samplable`.")
        distribution = WrappedSamplable(distribution)

    def decorate(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(fn)
        def estimated(*args: Any, **kwargs: Any) -> Tensor:
            leaves, structure = pytree.tree_flatten([args[number] for number in numbers])
            estimator = _Estimator(functools.partial(fn, **kwargs), distribution, method, numbers, num_samples, sigma)
            return _ZeroOrder.apply(estimator, args, structure, *leaves)

        return estimated

    return decorate


def _value(estimator: _Estimator, args: tuple[Any, ...], structure: Any, leaves: Sequence[Tensor]) -> Tensor:
    replaced = list(args)
    for number, value in zip(estimator.argnums, structure.unflatten(leaves), strict=True):
        replaced[number] = value
    output = estimator.fn(*replaced)
    if not isinstance(output, Tensor):
        raise RuntimeError("`output` must be a tensor.")
    if output.ndim != 0:
        raise RuntimeError("`output` must be a scalar tensor.")
    return output


def _weight(estimator: _Estimator, value: Callable[[float], Tensor], center: Tensor) -> Tensor:
    """Return what the noise is multiplied with; `value(s)` is f(x + s z)."""
    sigma = estimator.sigma
    if estimator.method == "naive":
        return value(sigma) / sigma
    if estimator.method == "forward":
        return (value(sigma) - center) / sigma
    return (value(sigma) - value(-sigma)) / (2 * sigma)


class _ZeroOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, estimator: _Estimator, args: tuple[Any, ...], structure: Any, *leaves: Tensor) -> Tensor:
        output = _value(estimator, args, structure, leaves).clone()
        ctx.estimator, ctx.args, ctx.structure = estimator, args, structure
        ctx.save_for_backward(output, *leaves)
        return output

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        estimator, (center, *leaves) = ctx.estimator, ctx.saved_tensors
        grads: list[Any] = [torch.zeros_like(leaf) for leaf in leaves]
        for _ in range(estimator.num_samples):
            noises = [
                torch.as_tensor(estimator.distribution.sample(sample_shape=leaf.shape), device=leaf.device)
                for leaf in leaves
            ]

            def value(scale: float, noises: list[Tensor] = noises) -> Tensor:
                moved = [leaf.add(noise, alpha=scale) for leaf, noise in zip(leaves, noises, strict=True)]
                return _value(estimator, ctx.args, ctx.structure, moved)

            weight = cotangents[0] * _weight(estimator, value, center)
            grads = [grad + weight * noise for grad, noise in zip(grads, noises, strict=True)]
        return None, None, None, *(grad / max(estimator.num_samples, 1) for grad in grads)
