"""The results of a sweep: all members, one of them, the best one."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Key, Tree
from torchpure.tree.summaries import counted, shortened, shown, summary, totals

from ._space import Point


class Sweep(NamedTuple):
    """All members, in the order of the points; the seeds of a point are adjacent."""

    points: list[Point]  # of each member
    keys: Tensor | None  # shape (members, 2)
    results: Tree  # leaves stacked over the members; a list of trees if the members' shapes differ

    def __repr__(self) -> str:
        names = dict.fromkeys(name for point in self.points for name in point)
        columns = [_column(name, [point[name] for point in self.points if name in point]) for name in names]
        first, *shapes = summary(self.results, 4)
        if isinstance(self.results, _UnstackedResults):
            first, shapes = f"a list of {len(self.results)}, because their shapes differ", []
        return "\n".join(
            [
                f"Sweep: {counted(len(self.points), 'member')}{'' if self.keys is None else ', each with a key'}",
                *shortened(columns, 5),
                f"  results: {first}",
                *(f"  {line}" for line in shapes),
            ]
        )


class Member(NamedTuple):
    """One training of a sweep."""

    point: Point
    key: Key | None
    result: Tree

    def __repr__(self) -> str:
        point = ", ".join(f"{name}={shown(value)}" for name, value in self.point.items())
        result = shown(self.result) if isinstance(self.result, Tensor) else totals(self.result)
        return shortened([f"Member: {point}; result: {result}"], 1)[0]


def _column(name: str, values: list[Any]) -> str:
    """Write what a hyper-parameter goes over: its values, or of many numbers their bounds."""
    texts = list(dict.fromkeys(map(shown, values)))
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(texts) > 6 and len(numbers) == len(values):
        return f"  {name}: {len(texts)} values, {shown(min(numbers))} to {shown(max(numbers))}"
    return f"  {name}: {', '.join(texts[:6])}" + (f", … {len(texts) - 6} more" if len(texts) > 6 else "")


def member(sweep: Sweep, index: int) -> Member:
    """Return one member: its point, its key and its result.

    >>> member(Sweep([{"learning_rate": 0.1}, {"learning_rate": 0.2}], None, torch.tensor([3.0, 4.0])), 1)
    Member: learning_rate=0.2; result: 4
    """
    stacked = not isinstance(sweep.results, _UnstackedResults)
    result = tree.map(lambda leaf: leaf[index], sweep.results) if stacked else sweep.results[index]
    return Member(sweep.points[index], None if sweep.keys is None else sweep.keys[index], result)


def best(sweep: Sweep, by: Callable[[Tree], float | Tensor] = lambda result: result) -> Member:
    """Return the member whose result has the smallest `by(result)`; NaN is never the best.

    Raises:
        ValueError: all members give NaN.
        TypeError: `by` is no function, or does not give a number.

    >>> found = Sweep([{"learning_rate": 0.1}, {"learning_rate": 0.2}], None, {"loss": torch.tensor([3.0, 2.0])})
    >>> best(found, lambda result: result["loss"]).point
    {'learning_rate': 0.2}
    """
    numbers = [_number(by, member(sweep, index).result) for index in range(len(sweep.points))]
    valid = [index for index, number in enumerate(numbers) if not math.isnan(number)]
    if not valid:
        raise ValueError(f"best: all {len(numbers)} members give NaN")
    return member(sweep, min(valid, key=numbers.__getitem__))


def _number(by: Callable[[Tree], float | Tensor], result: Tree) -> float:
    hint = 'pass by= a function of a result, such as by=lambda result: result["loss"]'
    if not callable(by):
        raise TypeError(f"best: by must be a function, got {tree.describe(by)}: {hint}")
    number = by(result)
    try:
        return float(number)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"best: wanted one number for each member, got {tree.describe(number)}: {hint}") from None


class _UnstackedResults(list):
    """The results as a list, because their shapes differ."""


def merge_results(groups: list[list[int]], parts: list[Tree], count: int) -> Tree:
    """Merge the results of all groups, in the order of the members."""
    shapes = {(tree.structure(part), *((leaf.shape[1:], leaf.dtype) for leaf in tree.leaves(part))) for part in parts}
    if len(parts) == 1:
        return parts[0]
    if len(shapes) == 1:
        order = torch.tensor([index for indices in groups for index in indices]).argsort()
        return tree.map(lambda *leaves: torch.cat(leaves)[order.to(leaves[0].device)], *parts)
    results: list[Any] = [None] * count
    for indices, part in zip(groups, parts, strict=True):
        for number, index in enumerate(indices):
            results[index] = tree.map(lambda leaf, at=number: leaf[at], part)
    return _UnstackedResults(results)
