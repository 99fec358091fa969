"""Pathwise derivatives (Kingma & Welling 2014, arXiv:1312.6114), and antithetic pairs (Hammersley & Morton 1956)."""

from collections.abc import Callable

import torch
from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key, Params, Tree
from torchpure.transforms import vmap
from torchpure.transforms.calls import check_callable

from ._samples import check_num_samples, check_scalar

Transform = Callable[[Params, Tree], Tree]  # (params, noise) -> x
Draw = Callable[[Key], Tree]


def pathwise(fn: Callable[..., Tensor], sample: Transform, noise: Draw, num_samples: int = 16) -> Callable[..., Tensor]:
    """Return `estimate(params, *args, key=key)`: the mean of fn(x, *args) over x = `sample(params, noise(key))`.

    Its derivatives in `params` go through x, so `fn` and `sample` must be smooth. Where they are, the variance is
    mostly far below that of `score_function`.

    Law: the mean over keys of `grad(estimate)` is the gradient of the expectation, if `fn` is smooth.

    Raises:
        TransformError: `num_samples` is below 1, or `fn` does not return a scalar.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import grad, random
    >>> estimate = pathwise(lambda x: x**2, lambda mean, z: mean + z, random.normal, 1000)
    >>> grad(estimate)(torch.tensor(1.5), key=random.key(0)).round(decimals=1)
    tensor(3.)
    """
    return _mean_over_noise("pathwise", fn, sample, noise, num_samples, (lambda drawn: drawn,))


def antithetic(
    fn: Callable[..., Tensor],
    sample: Transform,
    noise: Draw,
    num_pairs: int = 8,
    *,
    mirror: Callable[[Tree], Tree] | None = None,
) -> Callable[..., Tensor]:
    """Return the estimate of `pathwise` from pairs: each noise comes with its mirror image.

    `mirror(noise)` must have the distribution of the noise; the default is −noise, for symmetric noise. Where `fn` is
    monotone in the noise, errors of a pair cancel in part; where it is linear, they cancel exactly. Where it is even, a
    pair is worth one sample.

    Law: the mean over keys is that of `pathwise`.

    Raises:
        TransformError: `num_pairs` is below 1, or `fn` does not return a scalar.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import grad, random
    >>> estimate = antithetic(lambda x: x**2, lambda mean, z: mean + z, random.normal, num_pairs=1)
    >>> grad(estimate)(torch.tensor(1.5), key=random.key(0))
    tensor(3.)
    """
    reflect = mirror or (lambda drawn: tree.scale(drawn, -1.0))
    return _mean_over_noise("antithetic", fn, sample, noise, num_pairs, (lambda drawn: drawn, reflect))


def _mean_over_noise(
    caller: str,
    fn: Callable[..., Tensor],
    sample: Transform,
    noise: Draw,
    count: int,
    images: tuple[Callable[[Tree], Tree], ...],
) -> Callable[..., Tensor]:
    for part in (fn, sample, noise, *images):
        check_callable(caller, part)
    check_num_samples(caller, count, name="num_samples" if caller == "pathwise" else "num_pairs")

    def estimate(params: Params, *args: Tree, key: Key) -> Tensor:
        random.check_key(key, caller)

        def one(key: Key) -> Tensor:
            drawn = noise(key)
            values = [check_scalar(caller, "fn", fn(sample(params, image(drawn)), *args)) for image in images]
            return torch.stack(values).mean()

        return vmap(one)(random.split(key, count)).mean()

    return estimate
