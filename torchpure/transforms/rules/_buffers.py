"""Buffers of running modules as inputs and outputs of a function that a backward pass runs again.

A batch norm in such a function updates its buffers at each run. Only the update of the first run counts.
"""

from collections.abc import Callable, Sequence
from functools import update_wrapper
from itertools import chain, count
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure.transforms.context import Resumable, active_resumables
from torchpure.transforms.engine import innermost
from torchpure.transforms.overrides import note_update, overriding, updated_statistics


def with_buffers(
    run_pure: Callable[[Callable[..., Any], tuple[Any, ...]], Any],
    run: Callable[..., Any],
    args: tuple[Any, ...],
) -> Any:
    """Return `run_pure(run, args)`, and update the buffers of the modules that are running."""
    owners = [] if is_dynamo_compiling() else _owners()
    if not owners:
        return run_pure(run, args)

    statistics = set[int]()  # positions among all buffers

    def pure(buffers: list[list[Tensor]], *args: Any) -> tuple[Any, list[dict[int, Tensor]]]:
        owners = _owners()
        before = [owner.buffers for owner in owners]
        copies = [[leaf.clone() for leaf in part] for part in buffers]
        versions = [_versions(part) for part in copies]
        _set_buffers(owners, copies)
        try:
            with overriding(), updated_statistics() as updated:  # the overrides of norms note what they update
                out = run(*args)
            now = chain(*(owner.buffers for owner in owners))
            statistics.update(i for i, leaf in enumerate(now) if any(leaf is other for other in updated))
            return out, list(map(_changed, owners, copies, versions))
        finally:
            _set_buffers(owners, before)

    present = [owner.buffers for owner in owners]
    given = [[leaf.clone() for leaf in part] for part in present]  # code that follows may change the present ones
    _set_buffers(owners, given)
    try:
        out, changed = run_pure(update_wrapper(pure, run, updated=()), (given, *args))
    finally:
        _set_buffers(owners, present)
    positions = count()
    for owner, new, part in zip(owners, changed, present, strict=True):
        latest = [new.get(i, old) for i, old in enumerate(part)]
        owner.set_buffers([_constant(leaf) if next(positions) in statistics else leaf for leaf in latest])
    return out


def _constant(statistics: Tensor) -> Tensor:
    detached = statistics.detach()
    note_update(detached)
    return detached


def _owners() -> list[Resumable]:
    return [one for one in active_resumables() if one.buffers]


def _set_buffers(owners: Sequence[Resumable], values: Sequence[Sequence[Tensor]]) -> None:
    for owner, part in zip(owners, values, strict=True):
        owner.set_buffers(part)


def _versions(leaves: Sequence[Tensor]) -> list[int]:
    return [innermost(leaf)._version for leaf in leaves]


def _changed(owner: Resumable, copies: list[Tensor], versions: list[int]) -> dict[int, Tensor]:
    """Return the buffers that a run has written to or replaced, by position."""
    now = owner.buffers
    pairs = zip(now, copies, _versions(now), versions, strict=True)
    return {i: new for i, (new, old, *version) in enumerate(pairs) if new is not old or version[0] != version[1]}
