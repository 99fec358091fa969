"""The space of a sweep: lists and ranges of values, and the points chosen from them."""

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
    """A range of values, indexed by a fraction in [0, 1)."""

    at: Callable[[float], Any]  # a fraction in [0, 1) -> the value there
    text: str

    def __repr__(self) -> str:
        return self.text


Space = Mapping[str, Range | Iterable[Any]] | Sequence[Mapping[str, Any]]  # values by name, or the points themselves


def uniform(low: float, high: float) -> Range:
    """Make a range of evenly distributed values between two bounds.

    Raises:
        ValueError: the bounds are not finite, or not in order.

    >>> uniform(0.0, 10.0).at(0.5)
    5.0
    """
    _check_bounds("uniform", low, high)
    return Range(lambda fraction: low + fraction * (high - low), f"uniform({low}, {high})")


def log_uniform(low: float, high: float) -> Range:
    """Make a range of values with evenly distributed logarithms: for learning rates and scales.

    Raises:
        ValueError: the bounds are not positive and finite, or not in order.

    >>> round(log_uniform(1e-4, 1e-2).at(0.5), 6)
    0.001
    """
    _check_bounds("log_uniform", low, high)
    if low <= 0:
        raise ValueError(f"log_uniform: bounds must be positive, got {low}")
    start, end = math.log(low), math.log(high)
    return Range(lambda fraction: math.exp(start + fraction * (end - start)), f"log_uniform({low}, {high})")


def choice(values: Sequence[Any]) -> Range:
    """Make a range of equally frequent values from a list; a plain list in a space means the same.

    Raises:
        ValueError: the list is empty.

    >>> choice(["relu", "tanh"]).at(0.7)
    'tanh'
    """
    options = list(values)
    if not options:
        raise ValueError("choice: there are no values to choose from")
    return Range(lambda fraction: options[min(int(fraction * len(options)), len(options) - 1)], f"choice({options})")


def list_points(space: Any, method: str, num: int | None, key: Key | None) -> list[Point]:
    """List the points of a space.

    Raises:
        ValueError: the space is empty or uses the name `key`, or the method does not fit the space.
        TypeError: the space is no dict or list of dicts, or a name has neither a list nor a range.
    """
    if not isinstance(space, Mapping):
        return _listed_points(space, method, num)
    _check_names(space)
    if method == "grid":
        if num is not None:
            raise ValueError('sweep: a grid takes all points: num is for method="random" and method="sobol" only')
        columns = [_as_list(name, values) for name, values in space.items()]
        return [dict(zip(space, row, strict=True)) for row in itertools.product(*columns)]
    if method not in {"random", "sobol"}:
        raise ValueError(f'sweep: method must be "grid", "random" or "sobol", got {method!r}')
    if num is None or key is None or isinstance(num, bool) or num < 1:
        raise ValueError(f"sweep: method={method!r} needs a key, and num, at least 1; got num={num!r}, key={key!r}")
    ranges = [values if isinstance(values, Range) else choice(_as_list(name, values)) for name, values in space.items()]
    fractions = _draw_fractions(method, num, len(ranges), key)
    return [dict(zip(space, map(_value_at, ranges, row), strict=True)) for row in fractions]


def _value_at(values: Range, fraction: float) -> Any:
    return values.at(fraction)


def _draw_fractions(method: str, num: int, dims: int, key: Key) -> list[list[float]]:
    if method == "random":
        return random.uniform(key, (num, dims), dtype=torch.float64).tolist()
    seed = int(random.bits(key, 1))
    return torch.quasirandom.SobolEngine(dims, scramble=True, seed=seed).draw(num, dtype=torch.float64).tolist()


def _listed_points(space: Any, method: str, num: int | None) -> list[Point]:
    if not isinstance(space, list | tuple) or not all(isinstance(point, Mapping) for point in space):
        raise TypeError(
            f"sweep: space must be a dict of values by name, or a list of dicts, got {tree.describe(space)}"
        )
    if not space:
        raise ValueError("sweep: the space is empty: there are no points")
    if method != "grid" or num is not None:
        raise ValueError("sweep: a list of points is used as it is: leave out method and num")
    for number, point in enumerate(space):
        if point.keys() != space[0].keys():
            raise ValueError(f"sweep: point 0 has {sorted(space[0])}, point {number} has {sorted(point)}")
    if space[0]:
        _check_names(space[0])
    return [dict(point) for point in space]


def _check_names(space: Mapping[str, Any]) -> None:
    if not space:
        raise ValueError("sweep: the space is empty; to vary only the seeds, pass [{}]")
    if "key" in space:
        raise ValueError("sweep: `key` is the first argument of train: give the value another name")


def _as_list(name: str, values: Any) -> list[Any]:
    if isinstance(values, Range):
        raise ValueError(
            f'sweep: `{name}` is {values.text}, but a grid wants a list; ranges are for method="random" and "sobol"'
        )
    if isinstance(values, Tensor) and values.ndim == 1:
        values = list(values.unbind())
    elif isinstance(values, range):
        values = list(values)
    elif not isinstance(values, Tensor) and getattr(values, "ndim", 0) == 1:  # a numpy array
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise TypeError(
            f"sweep: `{name}` must have a list, a tuple, a tensor or array of one dimension or a range, got "
            f"{tree.describe(values)}"
        )
    if not values:
        raise ValueError(f"sweep: the space is empty: `{name}` has no values")
    return list(values)


def _check_bounds(caller: str, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{caller}: wanted finite bounds, the lower one first, got {low} and {high}")
