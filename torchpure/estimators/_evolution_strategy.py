"""Evolution strategies: a gradient from the values of a population (Salimans et al. 2017, arXiv:1703.03864)."""

from collections.abc import Callable

import torch
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


def evolution_strategy(
    fn: Callable[..., Tensor],
    std: float | Tensor = 0.1,
    num_pairs: int = 32,
    *,
    shape_fitness: Callable[[Tensor], Tensor] | None = None,
) -> Callable[..., Grads]:
    """Return `estimate(params, *args, key=key)`: the gradient estimated by a population of `num_pairs` pairs p ± std z.

    The whole population runs as one vmapped program. `fn(params, *args)` returns a scalar to be made small, and needs
    no derivative: it may be a whole training run. `shape_fitness` replaces the values, of shape (2 num_pairs,), before
    they weigh the directions: `centered_ranks` makes the step independent of their scale. Leaves that are not floating
    point have gradient None.

    Law: without `shape_fitness`, the mean over keys is the gradient of E[f(p + std z)].

    Raises:
        TransformError: `std` is not above 0, `num_pairs` is below 1, or `fn` does not return a scalar.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import random
    >>> estimate = evolution_strategy(lambda x: 3 * x, num_pairs=1000)
    >>> estimate(torch.tensor(1.0), key=random.key(0)).round()
    tensor(3.)
    """
    check_callable("evolution_strategy", fn)
    check_positive("evolution_strategy", std=std)
    check_num_samples("evolution_strategy", num_pairs, name="num_pairs")

    def estimate(params: Params, *args: Tree, key: Key) -> Grads:
        random.check_key(key, "evolution_strategy")
        check_params("evolution_strategy", params)
        directions = vmap(lambda key: normal_like(key, params))(random.split(key, num_pairs))

        def value(sign: Tensor, direction: Tree) -> Tensor:
            return check_scalar("evolution_strategy", "fn", fn(shift(params, direction, sign * std), *args))

        signs = torch.tensor([1.0, -1.0], device=key.device)
        values = vmap(lambda sign: vmap(lambda direction: value(sign, direction))(directions))(signs)
        if shape_fitness is not None:
            values = shape_fitness(values.flatten()).reshape(values.shape)
        return mean_of_products((values[0] - values[1]) / (2 * std), directions)

    return estimate


def centered_ranks(values: Tensor) -> Tensor:
    """Replace values, of shape (n,), by their ranks, from −0.5 for the least to 0.5 for the greatest.

    >>> import torch
    >>> centered_ranks(torch.tensor([7.0, -1.0, 1e9]))
    tensor([ 0.0000, -0.5000,  0.5000])
    """
    ranks = (values[:, None] > values[None, :]).sum(1).to(values.dtype)
    return ranks / max(values.numel() - 1, 1) - 0.5
