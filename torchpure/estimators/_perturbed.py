"""Perturbed optimizers and their Fenchel–Young loss (Berthet et al. 2020, arXiv:2002.08676)."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key, Tree
from torchpure.errors import TransformError
from torchpure.transforms import custom_jvp, stop_gradient, vmap
from torchpure.transforms.calls import check_callable

from ._samples import check_num_samples, check_positive

Noise = Literal["gumbel", "normal"]
_DRAWS = {"gumbel": random.gumbel, "normal": random.normal}
_LOG_DENSITIES = {
    "gumbel": lambda z: -(z + (-z).exp()).sum(),
    "normal": lambda z: -(z * z).sum() / 2,
}  # up to a constant


def perturbed(
    fn: Callable[[Tensor], Tree], std: float | Tensor = 1.0, num_samples: int = 16, *, noise: Noise = "normal"
) -> Callable[..., Tree]:
    """Return `estimate(scores, key=key)`: the mean of fn(scores + std z), which is smooth in the scores.

    `fn` is a function without useful derivatives, such as an argmax, a ranking or a shortest path; it returns a tensor
    or a tree of
    tensors. The derivatives of the mean are estimated from its values, to every order. With "gumbel" and a
    one-hot argmax, the expectation is softmax(scores / std).

    Law: the means over keys of the value and the Jacobian are E[fn(scores + std z)] and its Jacobian.

    Raises:
        TransformError: `std` is not above 0, `num_samples` is below 1, or the noise is unknown.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import random
    >>> argmax = lambda scores: torch.nn.functional.one_hot(scores.argmax(-1), 2).float()
    >>> perturbed(argmax, num_samples=1000, noise="gumbel")(torch.zeros(2), key=random.key(0)).round(decimals=1)
    tensor([0.5000, 0.5000])
    """
    _check("perturbed", fn, std, num_samples, noise)

    def estimate(scores: Tensor, *, key: Key) -> Tree:
        random.check_key(key, "perturbed")
        at = stop_gradient(scores)
        baseline = stop_gradient(fn(at))  # it does not depend on the draws, and lowers the variance of derivatives

        def one(key: Key) -> Tree:
            z = _DRAWS[noise](key, at.shape, dtype=at.dtype)
            # the point stays where it was drawn, its density moves with the scores
            density = _LOG_DENSITIES[noise](z + (at - scores) / std)
            ratio = (density - stop_gradient(density)).exp()
            value = stop_gradient(fn(at + std * z))
            return tree.map(lambda y, base: y * ratio - base * (ratio - 1), value, baseline)

        return tree.map(lambda leaf: leaf.mean(0), vmap(one)(random.split(key, num_samples)))

    return estimate


def fenchel_young_loss(
    fn: Callable[[Tensor], Tensor], std: float | Tensor = 1.0, num_samples: int = 16, *, noise: Noise = "normal"
) -> Callable[..., Tensor]:
    """Return `loss(scores, target, key=key)`: E[max over y of <y, scores + std z>] − <target, scores>.

    `fn(scores)` returns the y that makes <y, scores> greatest, of the shape of the scores. The gradient is E[fn(scores
    + std z)] − target. So the loss is convex in the scores, and least where the perturbed optimizer returns the target
    on average.

    Law: the mean over keys of the gradient is E[fn(scores + std z)] − target; the Hessian's is the Jacobian of
    `perturbed`.

    Raises:
        TransformError: as in `perturbed`.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import grad, random
    >>> argmax = lambda scores: torch.nn.functional.one_hot(scores.argmax(-1), 2).float()
    >>> loss = fenchel_young_loss(argmax, num_samples=1000)
    >>> grad(loss)(torch.zeros(2), torch.tensor([1.0, 0.0]), key=random.key(0)).round(decimals=1)
    tensor([-0.5000,  0.5000])
    """
    _check("fenchel_young_loss", fn, std, num_samples, noise)
    smooth = perturbed(fn, std, num_samples, noise=noise)

    @custom_jvp
    def greatest(scores: Tensor, key: Key) -> Tensor:
        def one(key: Key) -> Tensor:
            moved = scores + std * _DRAWS[noise](key, scores.shape, dtype=scores.dtype)
            return (fn(moved) * moved).sum()

        return vmap(one)(random.split(key, num_samples)).mean()

    def rule(primals: tuple[Tensor, Key], tangents: tuple[Tensor, object]) -> tuple[Tensor, Tensor]:
        scores, key = primals
        return greatest(scores, key), (smooth(scores, key=key) * tangents[0]).sum()

    greatest.defjvp(rule)

    def loss(scores: Tensor, target: Tensor, *, key: Key) -> Tensor:
        random.check_key(key, "fenchel_young_loss")
        return greatest(scores, key) - (target * scores).sum()

    return loss


def _check(caller: str, fn: Callable[..., Tree], std: float | Tensor, num_samples: int, noise: str) -> None:
    check_callable(caller, fn)
    check_positive(caller, std=std)
    check_num_samples(caller, num_samples)
    if noise not in _DRAWS:
        raise TransformError(f"{caller}: noise must be 'normal' or 'gumbel', got {noise!r}")
