"""Checks that the estimators share."""

from typing import Any

from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key, Tree
from torchpure.errors import TransformError
from torchpure.transforms.engine import is_variable


def check_num_samples(caller: str, count: object, least: int = 1, name: str = "num_samples") -> None:
    """Check a number of samples."""
    if type(count) is not int or count < least:
        raise TransformError(f"{caller}: {name} must be an int of at least {least}, got {count!r}")


def check_positive(caller: str, **numbers: float | Tensor) -> None:
    """Check numbers that must be above zero; tensors are not checked."""
    for name, value in numbers.items():
        if not isinstance(value, Tensor) and not value > 0:
            raise TransformError(f"{caller}: {name} must be above 0, got {value!r}")


def check_scalar(caller: str, name: str, value: Any) -> Tensor:
    """Check that a function returned one number."""
    if not isinstance(value, Tensor) or value.shape != ():
        raise TransformError(f"{caller}: {name} must return a tensor of shape (), got {tree.describe(value)}")
    return value


def check_params(caller: str, params: Tree) -> None:
    """Check that there is something to perturb."""
    if not any(map(is_variable, tree.leaves(params))):
        raise TransformError(
            f"{caller}: the parameters have no floating point tensor to be perturbed, got {tree.describe(params)}"
        )


def normal_like(key: Key, params: Tree) -> Tree:
    """Draw standard normal numbers for each floating point leaf; None stands for other leaves."""
    leaves, structure = tree.flatten(params)
    keys = random.split(key, max(len(leaves), 1))
    drawn = [
        random.normal(one, leaf.shape, dtype=leaf.dtype).to(leaf.device) if is_variable(leaf) else None
        for one, leaf in zip(keys, leaves, strict=False)
    ]
    return tree.unflatten(structure, drawn)


def signs_like(key: Key, params: Tree) -> Tree:
    """Draw ±1 for each floating point number; None stands for other leaves."""
    leaves, structure = tree.flatten(params)
    keys = random.split(key, max(len(leaves), 1))
    drawn = [
        2 * random.bernoulli(one, 0.5, leaf.shape).to(leaf) - 1 if is_variable(leaf) else None
        for one, leaf in zip(keys, leaves, strict=False)
    ]
    return tree.unflatten(structure, drawn)


def shift(params: Tree, direction: Tree, factor: float | Tensor) -> Tree:
    """Return params + factor · direction, where None in the direction leaves a parameter as it is."""
    leaves, structure = tree.flatten(params)
    moves = tree.align(structure, params, direction, "shift")
    moved = [leaf if move is None else leaf + factor * move for leaf, move in zip(leaves, moves, strict=True)]
    return tree.unflatten(structure, moved)


def mean_of_products(weights: Tensor, directions: Tree) -> Tree:
    """Return the mean over samples of weight · direction; weights have shape (samples,)."""

    def mean(leaf: Any) -> Any:
        if leaf is None:
            return None
        return (weights.to(leaf).reshape(-1, *[1] * (leaf.ndim - 1)) * leaf).mean(0)

    return tree.map(mean, directions)
