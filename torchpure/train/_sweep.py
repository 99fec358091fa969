"""Run many trainings at once, over a space of hyper-parameters and seeds."""

import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from torchpure import random, tree
from torchpure._types import Key, Tree
from torchpure.errors import TransformError
from torchpure.transforms import vmap
from torchpure.transforms.engine import describe_function

from ._divergence import members_error
from ._sweep_chunks import Chunk, Group, Outcome, join_chunks, make_groups, run_chunk, run_group, split_group
from .callbacks import Divergence
from .executors import ExecutorLike, Task, run_tasks
from .sweeps import (
    ChunkStore,
    Folder,
    Method,
    Point,
    Space,
    Sweep,
    arguments_of,
    list_points,
    merge_results,
    open_chunk_store,
)


def sweep(
    train: Callable[..., Tree],
    space: Space,
    *,
    key: Key | None = None,
    method: Method = "grid",
    num: int | None = None,
    seeds: int = 1,
    jit: bool = True,
    chunk_size: int | None = None,
    executor: ExecutorLike | None = None,
    checkpoint: Folder | None = None,
    resume: bool = False,
) -> Sweep:
    """Run `train(key, **point)` for each point of a space and each seed, in as few compiled programs as possible.

    `space` is a dict from names to lists of values; a grid takes all combinations. Values may also be ranges
    (`uniform`, `log_uniform`, `choice`); then `method="random"` or `"sobol"` takes `num` points. Or `space` is a list
    of points.

    Floats and tensors become tensors of shape () and are batched, with the key; a float becomes float64. All other
    values (ints, strings, modules, optimizers) stay as they are. Points that share them form one program, which runs
    its members in chunks of `chunk_size`, on all cores. With `jit=False` they run uncompiled. `train` returns tensors
    and numbers.

    With `executor`, any `concurrent.futures.Executor`, each chunk is a task of another process or machine. Give a
    function that makes an executor, and a new one takes over when a worker is lost. With `checkpoint`, a folder, chunks
    that are finished are kept there, and with `resume` they are not run again.

    Law: each member equals `train(its key, **its point)`, up to rounding; members do not affect each other.
    Law: the bits are the same with every executor, and with none, on machines of one kind.

    Raises:
        ValueError: the space is empty or does not fit the method, `seeds` needs a key, or the folder has the chunks of
            another sweep.
        WorkerError: the executor cannot run `train`, a worker was lost, or has other versions of torch.
        CheckpointError: a chunk cannot be written or read.
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
    if chunk_size is not None and (type(chunk_size) is not int or chunk_size < 1):
        raise ValueError(f"sweep: chunk_size must be an int of at least 1, or None, got {chunk_size!r}")
    if key is not None:
        random.check_key(key, "sweep")
    k_points, k_members = (None, None) if key is None else random.split(key)
    points = list_points(space, method, num, k_points)
    _check_signature(train, points[0])
    members = [point for point in points for _ in range(seeds)]
    keys = None if k_members is None else _member_keys(k_members, len(points), seeds)
    groups = make_groups(members, keys, chunk_size, jit=jit)
    if executor is None and checkpoint is None and not resume:
        outcomes = [run_group(train, group) for group in groups]
    else:
        widths = [group.width for group in groups]
        with open_chunk_store(checkpoint, resume, lambda: arguments_of(train, members, keys, widths, jit=jit)) as store:
            outcomes = _run_chunks(train, groups, executor, store)
    results = merge_results([group.indices for group in groups], [result for result, _ in outcomes], len(members))
    made = Sweep(members, keys, results)
    found = (divergences for _, divergences in outcomes)
    _refuse_nonfinite(made, zip((group.indices for group in groups), found, strict=True))
    return made


def _run_chunks(
    train: Callable[..., Tree], groups: list[Group], executor: ExecutorLike | None, store: ChunkStore
) -> list[Outcome]:
    """Run the chunks that are not finished on an executor, or on threads, and join all of them."""
    if not tree.unwatched():
        raise TransformError("sweep: executor= and checkpoint= are for a sweep outside of all transforms")
    name = uuid.uuid4().hex  # workers keep programs under it, beyond one task
    of_groups = [split_group(train, group, f"{name}-{number}") for number, group in enumerate(groups)]
    chunks = [chunk for part in of_groups for chunk in part]
    kept = store.finished()
    missing = sorted({*range(len(chunks))} - kept | _examples(of_groups, kept))
    tasks = [_task(chunks[number]) for number in missing]
    on_threads = partial(ThreadPoolExecutor, torch.get_num_threads())
    outcomes: dict[int, Outcome] = {}
    with closing(run_tasks("sweep", executor or on_threads, run_chunk, tasks)) as ends:
        for place, outcome in ends:
            outcomes[missing[place]] = outcome
            if missing[place] not in kept:
                store.save(missing[place], outcome)
    joined, first = [], 0
    for group, part in zip(groups, of_groups, strict=True):
        numbers = range(first, first + len(part))
        like = next(outcomes[number] for number in numbers if number in outcomes)
        of_group = [outcomes[n] if n in outcomes else store.restore(n, like) for n in numbers]
        joined.append(join_chunks(group, of_group))
        first += len(part)
    return joined


def _examples(of_groups: list[list[Chunk]], kept: set[int]) -> set[int]:
    """Return a chunk of each group that is finished: it runs again, because the structure of results is not stored."""
    first, found = 0, set()
    for part in of_groups:
        if kept.issuperset(range(first, first + len(part))):
            found.add(first)
        first += len(part)
    return found


def _task(chunk: Chunk) -> Task:
    named = {f"`{name}` of the space": value for name, value in chunk.group.statics.items()}
    return Task(
        _label(chunk.group.indices), (chunk,), {**named, f"train {describe_function(chunk.train)}": chunk.train}
    )


def _label(indices: list[int]) -> str:
    first, last = min(indices), max(indices)
    if first == last:
        return f"member {first}"
    every = last - first + 1 == len({*indices})
    return f"members {first} to {last}" if every else f"{len({*indices})} members from {first} to {last}"


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
