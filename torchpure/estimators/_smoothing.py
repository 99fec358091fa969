"""Gradients of a smoothed function, from its values alone (Nesterov & Spokoiny 2017)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchpure import random
from torchpure._types import Grads, Key, Params, Tree
from torchpure.transforms import vmap
from torchpure.transforms.calls import check_callable

from ._samples import (
    check_num_samples,
    check_params,
    check_positive,
    check_scalar,
    mean_of_products,
    normal_like,
    shift,
)


def forward_difference(
    fn: Callable[..., Tensor], std: float | Tensor = 1e-2, num_samples: int = 16
) -> Callable[..., Grads]:
    """Return `estimate(params, *args, key=key)`: the mean of (f(p + std z) − f(p)) z / std over normal z.

    It is an unbiased estimate of the gradient of E[f(p + std z)], which tends to that of f. It needs `num_samples` + 1
    values, in one vmapped program. Leaves that are not floating point have gradient None. `fn(params, *args)` returns a
    scalar, and needs no derivative.

    Law: the mean over keys is the gradient of E[f(p + std z)].

    Raises:
        TransformError: `std` is not above 0, `num_samples` is below 1, or `fn` does not return a scalar.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import random
    >>> estimate = forward_difference(lambda x: 3 * x, num_samples=1000)
    >>> estimate(torch.tensor(1.0), key=random.key(0)).round()
    tensor(3.)
    """

    def weight(value: Callable[[Tree, float | Tensor], Tensor], z: Tree, base: Tensor) -> Tensor:
        return (value(z, std) - base) / std

    return smoothed("forward_difference", fn, std, num_samples, normal_like, weight, with_base=True)


def central_difference(
    fn: Callable[..., Tensor], std: float | Tensor = 1e-2, num_samples: int = 16
) -> Callable[..., Grads]:
    """Return `estimate(params, *args, key=key)`: the mean of (f(p + std z) − f(p − std z)) z / (2 std) over normal z.

    It needs 2 `num_samples` values. Even terms of f cancel, so that its variance is mostly lower than that of
    `forward_difference`. All else is as there. These are the antithetic pairs of evolution strategies.

    Law: the mean over keys is the gradient of E[f(p + std z)].

    Raises:
        TransformError: as in `forward_difference`.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import random
    >>> estimate = central_difference(lambda x: 3 * x, num_samples=1000)
    >>> estimate(torch.tensor(1.0), key=random.key(0)).round()
    tensor(3.)
    """

    def weight(value: Callable[[Tree, float | Tensor], Tensor], z: Tree, _: Any) -> Tensor:
        return (value(z, std) - value(z, -std)) / (2 * std)

    return smoothed("central_difference", fn, std, num_samples, normal_like, weight)


def smoothed(
    caller: str,
    fn: Callable[..., Tensor],
    std: float | Tensor,
    num_samples: int,
    draw: Callable[[Key, Params], Tree],
    weight: Callable[..., Tensor],
    with_base: bool = False,
    size_name: str = "std",
) -> Callable[..., Grads]:
    """Return the estimate that is the mean of weight · direction; `weight(value, direction, f(p))` is a number."""
    check_callable(caller, fn)
    check_positive(caller, **{size_name: std})
    check_num_samples(caller, num_samples)

    def estimate(params: Params, *args: Tree, key: Key) -> Grads:
        random.check_key(key, caller)
        check_params(caller, params)
        base = check_scalar(caller, "fn", fn(params, *args)) if with_base else None

        def value(direction: Tree, factor: float | Tensor) -> Tensor:
            return check_scalar(caller, "fn", fn(shift(params, direction, factor), *args))

        def one(key: Key) -> tuple[Tensor, Tree]:
            direction = draw(key, params)
            return weight(value, direction, base), direction

        return mean_of_products(*vmap(one)(random.split(key, num_samples)))

    return estimate
