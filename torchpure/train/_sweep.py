"""Run many trainings at once, over a space of hyper-parameters and seeds."""

import math
from collections.abc import Callable, Hashable, Iterable
from functools import wraps
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key, Tree
from torchpure.jit import jit as jit_compile
from torchpure.transforms import vmap
from torchpure.tree.summaries import counted, shortened, shown, summary, totals

from ._divergence import members_error
from ._reports import collect
from ._space import Method, Point, Space, list_points
from .callbacks import Divergence

_UNCOMPILED_CHUNK = 64  # the chunk size of uncompiled members


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
    """Run `train(key, **point)` for each point of a space and each seed, in as few compiled programs as possible.

    `space` is a dict from names to lists of values; a grid takes all combinations. Values may also be ranges
    (`uniform`, `log_uniform`, `choice`); then `method="random"` or `"sobol"` takes `num` points. Or `space` is a list
    of points.

    Floats and tensors become tensors of shape () and are batched, with the key; a float becomes float64. All other
    values (ints, strings, modules, optimizers) stay as they are. Points that share them form one program, which runs
    its members in chunks that fit in the cache, on all cores. With `jit=False` they run uncompiled. `train` returns
    tensors and numbers.

    Law: each member equals `train(its key, **its point)`, up to rounding; members do not affect each other.

    Raises:
        ValueError: the space is empty or does not fit the method, or `seeds` needs a key.
        NonFiniteError: fits with on_nonfinite="raise" were not finite; all members have run, and `error.result` is the
            Sweep.
        TypeError: the space has a wrong type, `train` does not take its names, or returns no tensors and numbers.

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
            f"sweep: seeds must be an integer of at least 1, and more than 1 need a key, such as key=tp.random.key(0); "
            f"got seeds={seeds!r}, key={key}"
        )
    if key is not None:
        random.check_key(key, "sweep")
    k_points, k_members = (None, None) if key is None else random.split(key)
    points = list_points(space, method, num, k_points)
    _check_signature(train, points[0])
    members = [point for point in points for _ in range(seeds)]
    keys = None if k_members is None else _member_keys(k_members, len(points), seeds)
    groups = _group_members(members)
    parts = [_run_group(train, members, keys, indices, jit) for indices in groups]
    made = Sweep(members, keys, _merge_results(groups, [result for result, _ in parts], len(members)))
    _refuse_nonfinite(made, zip(groups, (found for _, found in parts), strict=True))
    return made


def _refuse_nonfinite(made: Sweep, found: Iterable[tuple[list[int], list[Divergence]]]) -> None:
    """Raise the error of the members whose fits had on_nonfinite="raise" and were not finite.

    Raises:
        NonFiniteError: there are such members.
    """
    first: dict[int, Divergence] = {}
    for indices, divergences in found:
        for divergence in divergences:
            for place in divergence.step.nonzero().flatten().tolist():
                first.setdefault(indices[place], tree.map(lambda leaf, at=place: leaf[at], divergence))
    if first:
        bad = sorted(first)
        members: list[tuple[int, ...]] = [(index,) for index in bad]
        raise members_error("sweep: a step is not finite", members, first[bad[0]], made)


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


def _check_signature(train: Callable[..., Any], point: Point) -> None:
    try:
        signature(train).bind(None, **point)
    except TypeError as error:
        way_out = "; its first argument is the key" if "multiple values" in str(error) else ""
        raise TypeError(f"sweep: train(key, {', '.join(f'{name}=…' for name in point)}): {error}{way_out}") from None
    except ValueError:  # a function written in C has no signature
        return


def _member_keys(key: Key, count: int, seeds: int) -> Tensor:
    """Return a key for each member; it depends only on the indices of its point and its seed."""
    numbers = torch.arange(count, device=key.device)
    of_points = vmap(lambda number: random.fold_in(key, number))(numbers)
    return vmap(lambda key: random.split(key, seeds))(of_points).flatten(0, 1)


def _is_batched(value: Any) -> bool:
    return isinstance(value, float | Tensor)


def _group_members(members: list[Point]) -> list[list[int]]:
    """Group the members that can run as one program; list their indices."""
    groups: dict[Hashable, list[int]] = {}
    for index, point in enumerate(members):
        groups.setdefault(tuple(map(_group_key, point.items())), []).append(index)
    return list(groups.values())


def _group_key(item: tuple[str, Any]) -> Hashable:
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


def _run_group(
    train: Callable[..., Tree], members: list[Point], keys: Tensor | None, indices: list[int], jit: bool
) -> tuple[Tree, list[Divergence]]:
    """Run the members with these indices, which differ only in floats and tensors; stack their results.

    The second result is what their fits with on_nonfinite="raise" found.
    """
    statics = {name: value for name, value in members[indices[0]].items() if not _is_batched(value)}
    names = [name for name in members[indices[0]] if name not in statics]
    columns = {name: torch.stack([_as_tensor(members[index][name]) for index in indices]) for name in names}
    member_keys = None if keys is None else keys[indices]

    @wraps(train, updated=())
    def run_member(key: Key | None, values: dict[str, Tensor]) -> tuple[Tree, list[Divergence]]:
        with collect() as found:
            try:
                return _as_tensors(train(key, **statics, **values)), found
            except TypeError as error:
                if key is None and "wanted a key" in str(error):
                    raise TypeError(
                        f"sweep: train uses its key; pass key=tp.random.key(0) to sweep ({error})"
                    ) from None
                raise

    if len(indices) == 1 or (member_keys is None and not columns):  # identical members run once
        run = jit_compile(run_member) if jit else run_member
        result = run(
            None if member_keys is None else member_keys[0], {name: column[0] for name, column in columns.items()}
        )
        return tree.map(lambda leaf: leaf.expand(len(indices), *leaf.shape), result)
    if jit:
        return jit_compile(vmap(run_member))(member_keys, columns)
    return vmap(run_member, chunk_size=_UNCOMPILED_CHUNK)(member_keys, columns)


def _as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _as_tensors(result: Tree) -> Tree:
    leaves, structure = tree.flatten(result)
    for path, leaf in zip(tree.paths(result), leaves, strict=True):
        if not isinstance(leaf, Tensor | bool | int | float | complex):
            raise TypeError(f"sweep: train must return tensors and numbers, got {tree.describe(leaf)} at `{path}`")
    return tree.unflatten(structure, [leaf if isinstance(leaf, Tensor) else torch.tensor(leaf) for leaf in leaves])


def _merge_results(groups: list[list[int]], parts: list[Tree], count: int) -> Tree:
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
