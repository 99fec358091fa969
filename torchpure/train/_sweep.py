"""Many trainings at once, over a space of hyper-parameters and seeds."""

import math
from collections.abc import Callable, Hashable
from functools import wraps
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key, Tree
from torchpure.jit import jit as compiled
from torchpure.transforms import vmap
from torchpure.tree._summary import counted, shortened, shown, summary, totals

from ._space import Method, Point, Space, points

_TOGETHER = 64  # members at once that run uncompiled


class Sweep(NamedTuple):
    """All members: the seeds of a point are neighbours, points are in their order."""

    points: list[Point]  # of each member
    keys: Tensor | None  # shape (members, 2)
    results: Tree  # leaves stacked over the members; a list of trees where members differ in shape

    def __repr__(self) -> str:
        names = dict.fromkeys(name for point in self.points for name in point)
        columns = [_column(name, [point[name] for point in self.points if name in point]) for name in names]
        first, *shapes = summary(self.results, 4)
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


def sweep(
    train: Callable[..., Tree],
    space: Space,
    *,
    key: Key | None = None,
    method: Method = "grid",
    num: int | None = None,
    seeds: int = 1,
    jit: bool = True,
) -> Sweep:
    """Run `train(key, **point)` for each point of a space, and for each of some seeds, as few compiled programs.

    `space` holds lists of values by name, of which a grid takes all combinations, or ranges too (`uniform`,
    `log_uniform`, `choice`), of which `method="random"` or `"sobol"` takes `num` points; or it is the list of points.

    Floats and tensors become tensors of shape (), and run batched with the key; a float is float64. All else (ints,
    strings, modules, optimizers) stays what it is: the points that share it are one program, which runs its members in
    chunks that fit in cache, on all cores. With `jit=False` they run uncompiled. `train` returns tensors and numbers.

    Law: each member equals `train(its key, **its point)`, up to rounding; no member sees another.

    Raises:
        ValueError: the space is empty or does not fit the method, or `seeds` needs a key.
        TypeError: the space is of no use, `train` does not take its names, or returns what is no tensor or number.

    >>> import torchpure as tp
    >>> def train(key, learning_rate):
    ...     start = torch.tensor(1.0)
    ...     return tp.fit(lambda p, x: ((p - x) ** 2).mean(), torch.tensor([3.0]), params=start,
    ...                   optimizer=tp.optim.sgd(learning_rate), steps=2).params
    >>> sweep(train, {"learning_rate": [0.25, 0.5]}, jit=False).results
    tensor([2.5000, 3.0000])
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1 or (key is None and seeds > 1):
        raise ValueError(
            f"sweep: seeds must be a whole number, at least 1, and needs a key beyond 1; got {seeds!r}, {key}"
        )
    k_points, k_members = (None, None) if key is None else random.split(key)
    found = points(space, method, num, k_points)
    _check_taken(train, found[0])
    members = [point for point in found for _ in range(seeds)]
    keys = None if k_members is None else _keys(k_members, len(found), seeds)
    groups = _groups(members)
    parts = [_run(train, members, keys, places, jit) for places in groups]
    return Sweep(members, keys, _merged(groups, parts, len(members)))


def member(sweep: Sweep, index: int) -> Member:
    """Return one training: its point, its key and its result.

    >>> member(Sweep([{"learning_rate": 0.1}, {"learning_rate": 0.2}], None, torch.tensor([3.0, 4.0])), 1)
    Member: learning_rate=0.2; result: 4
    """
    stacked = not isinstance(sweep.results, _Apart)
    result = tree.map(lambda leaf: leaf[index], sweep.results) if stacked else sweep.results[index]
    return Member(sweep.points[index], None if sweep.keys is None else sweep.keys[index], result)


def best(sweep: Sweep, by: Callable[[Tree], float | Tensor] = lambda result: result) -> Member:
    """Return the training for whose result `by` gives the smallest number; NaN is never the best.

    Raises:
        ValueError: all are NaN.

    >>> found = Sweep([{"learning_rate": 0.1}, {"learning_rate": 0.2}], None, {"loss": torch.tensor([3.0, 2.0])})
    >>> best(found, lambda result: result["loss"]).point
    {'learning_rate': 0.2}
    """
    numbers = [float(by(member(sweep, index).result)) for index in range(len(sweep.points))]
    sound = [index for index, number in enumerate(numbers) if not math.isnan(number)]
    if not sound:
        raise ValueError(f"best: of {len(numbers)} members each gives NaN")
    return member(sweep, min(sound, key=numbers.__getitem__))


class _Apart(list):
    """Results of members that differ in shape."""


def _check_taken(train: Callable[..., Any], point: Point) -> None:
    try:
        signature(train).bind(None, **point)
    except TypeError as error:
        raise TypeError(f"sweep: train(key, {', '.join(f'{name}=…' for name in point)}): {error}") from None
    except ValueError:  # a function of C has no signature
        return


def _keys(key: Key, count: int, seeds: int) -> Tensor:
    """Return a key for each member, which depends on nothing but the numbers of its point and its seed."""
    numbers = torch.arange(count, device=key.device)
    of_points = vmap(lambda number: random.fold_in(key, number))(numbers)
    return vmap(lambda one: random.split(one, seeds))(of_points).flatten(0, 1)


def _batched(value: Any) -> bool:
    return isinstance(value, float | Tensor)


def _groups(members: list[Point]) -> list[list[int]]:
    """List which members can be one program."""
    groups: dict[Hashable, list[int]] = {}
    for place, point in enumerate(members):
        groups.setdefault(tuple(map(_kind, point.items())), []).append(place)
    return list(groups.values())


def _kind(item: tuple[str, Any]) -> Hashable:
    name, value = item
    if isinstance(value, Tensor):
        return name, value.shape, value.dtype, value.device
    if isinstance(value, float):
        return name, float
    try:
        hash(value)
    except TypeError:
        return name, id(value)
    return name, type(value), value


def _run(train: Callable[..., Tree], members: list[Point], keys: Tensor | None, places: list[int], jit: bool) -> Tree:
    """Run the members at some places, which differ in floats and tensors alone; stack their results."""
    statics = {name: value for name, value in members[places[0]].items() if not _batched(value)}
    names = [name for name in members[places[0]] if name not in statics]
    columns = {name: torch.stack([_tensor(members[place][name]) for place in places]) for name in names}
    own = None if keys is None else keys[places]

    @wraps(train, updated=())
    def one(key: Key | None, values: dict[str, Tensor]) -> Tree:
        return _tensors(train(key, **statics, **values))

    if len(places) == 1 or (own is None and not columns):  # members that are all the same run once
        run = compiled(one) if jit else one
        result = run(None if own is None else own[0], {name: column[0] for name, column in columns.items()})
        return tree.map(lambda leaf: leaf.expand(len(places), *leaf.shape), result)
    if jit:
        return compiled(vmap(one))(own, columns)
    return vmap(one, chunk_size=_TOGETHER)(own, columns)


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _tensors(result: Tree) -> Tree:
    leaves, structure = tree.flatten(result)
    for path, leaf in zip(tree.paths(result), leaves, strict=True):
        if not isinstance(leaf, Tensor | bool | int | float | complex):
            raise TypeError(f"sweep: train must return tensors and numbers, got {tree.describe(leaf)} at `{path}`")
    return tree.unflatten(structure, [leaf if isinstance(leaf, Tensor) else torch.tensor(leaf) for leaf in leaves])


def _merged(groups: list[list[int]], parts: list[Tree], count: int) -> Tree:
    """Put the results of all groups in the order of the members."""
    shapes = {(tree.structure(part), *((leaf.shape[1:], leaf.dtype) for leaf in tree.leaves(part))) for part in parts}
    if len(parts) == 1:
        return parts[0]
    if len(shapes) == 1:
        order = torch.tensor([place for places in groups for place in places]).argsort()
        return tree.map(lambda *leaves: torch.cat(leaves)[order.to(leaves[0].device)], *parts)
    apart: list[Any] = [None] * count
    for places, part in zip(groups, parts, strict=True):
        for number, place in enumerate(places):
            apart[place] = tree.map(lambda leaf, at=number: leaf[at], part)
    return _Apart(apart)
