"""What a sweep goes over: lists and ranges of values, and the points that are taken of them."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key

Point = dict[str, Any]
Method = Literal["grid", "random", "sobol"]


class Range(NamedTuple):
    """Values between two bounds, by their share of the way."""

    at: Callable[[float], Any]  # of a number in [0, 1)
    text: str


Space = Mapping[str, Range | Iterable[Any]] | Sequence[Mapping[str, Any]]  # values by name, or the points themselves


def uniform(low: float, high: float) -> Range:
    """Take values evenly between two bounds.

    Raises:
        ValueError: the bounds are not finite, or not in order.

    >>> uniform(0.0, 10.0).at(0.5)
    5.0
    """
    _check_bounds("uniform", low, high)
    return Range(lambda share: low + share * (high - low), f"uniform({low}, {high})")


def log_uniform(low: float, high: float) -> Range:
    """Take values whose logarithms are even between those of two bounds: for learning rates and scales.

    Raises:
        ValueError: the bounds are not positive and finite, or not in order.

    >>> round(log_uniform(1e-4, 1e-2).at(0.5), 6)
    0.001
    """
    _check_bounds("log_uniform", low, high)
    if low <= 0:
        raise ValueError(f"log_uniform: bounds must be positive, got {low}")
    start, end = math.log(low), math.log(high)
    return Range(lambda share: math.exp(start + share * (end - start)), f"log_uniform({low}, {high})")


def choice(values: Sequence[Any]) -> Range:
    """Take one of some values, each as often as another; a list in a space means the same.

    Raises:
        ValueError: there are none.

    >>> choice(["relu", "tanh"]).at(0.7)
    'tanh'
    """
    options = list(values)
    if not options:
        raise ValueError("choice: there are no values to choose from")
    return Range(lambda share: options[min(int(share * len(options)), len(options) - 1)], f"choice({options})")


def points(space: Any, method: str, num: int | None, key: Key | None) -> list[Point]:
    """List the points of a space.

    Raises:
        ValueError: the space is empty or has a name that is taken, or the method does not fit it.
        TypeError: the space, or what a name has in it, is of no use.
    """
    if not isinstance(space, Mapping):
        return _explicit(space, method, num)
    _check_names(space)
    if method == "grid":
        if num is not None:
            raise ValueError('sweep: a grid has all its points: num is for method="random" and method="sobol"')
        columns = [_listed(name, values) for name, values in space.items()]
        return [dict(zip(space, row, strict=True)) for row in itertools.product(*columns)]
    if method not in {"random", "sobol"}:
        raise ValueError(f'sweep: method must be "grid", "random" or "sobol", got {method!r}')
    if num is None or key is None or isinstance(num, bool) or num < 1:
        raise ValueError(f"sweep: method={method!r} needs a key, and num, at least 1; got num={num!r}, key={key!r}")
    ranges = [values if isinstance(values, Range) else choice(_listed(name, values)) for name, values in space.items()]
    shares = _shares(method, num, len(ranges), key)
    return [dict(zip(space, map(_at, ranges, row), strict=True)) for row in shares]


def _at(values: Range, share: float) -> Any:
    return values.at(share)


def _shares(method: str, num: int, dims: int, key: Key) -> list[list[float]]:
    if method == "random":
        return random.uniform(key, (num, dims), dtype=torch.float64).tolist()
    seed = int(random.bits(key, 1))
    return torch.quasirandom.SobolEngine(dims, scramble=True, seed=seed).draw(num, dtype=torch.float64).tolist()


def _explicit(space: Any, method: str, num: int | None) -> list[Point]:
    if not isinstance(space, list | tuple) or not all(isinstance(point, Mapping) for point in space):
        raise TypeError(
            f"sweep: space must be a dict of values by name, or a list of dicts, got {tree.describe(space)}"
        )
    if not space:
        raise ValueError("sweep: the space is empty: there are no points")
    if method != "grid" or num is not None:
        raise ValueError("sweep: points that are listed are taken as they are: leave out method and num")
    for number, point in enumerate(space):
        if point.keys() != space[0].keys():
            raise ValueError(f"sweep: point 0 has {sorted(space[0])}, point {number} has {sorted(point)}")
    if space[0]:
        _check_names(space[0])
    return [dict(point) for point in space]


def _check_names(space: Mapping[str, Any]) -> None:
    if not space:
        raise ValueError("sweep: the space is empty; to run seeds alone, pass [{}]")
    if "key" in space:
        raise ValueError("sweep: `key` is the first argument of train: give the value another name")


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, Range):
        raise ValueError(
            f'sweep: `{name}` is {values.text}, but a grid wants a list; ranges are for method="random" and "sobol"'
        )
    if isinstance(values, Tensor) and values.ndim == 1:
        values = list(values.unbind())
    elif isinstance(values, range):
        values = list(values)
    elif not isinstance(values, Tensor) and getattr(values, "ndim", 0) == 1:  # an array of numpy
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise TypeError(
            f"sweep: `{name}` must have a list, a tuple, a tensor or array of one dimension or a range, got "
            f"{tree.describe(values)}"
        )
    if not values:
        raise ValueError(f"sweep: the space is empty: `{name}` has no values")
    return list(values)


def _check_bounds(who: str, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{who}: wanted finite bounds, the lower one first, got {low} and {high}")
