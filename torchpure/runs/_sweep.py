"""Many fits at once, from their space to their folder, and on from there if they were interrupted."""

import json
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchpure.errors import InputError
from torchpure.train.executors import ExecutorLike

from ._folder import new_folder, open_checkpoints, replace_file, slug
from ._run import describe_run, label
from ._sweep_best import save_best
from ._sweeping import Sweeping
from .fits import INTERRUPTED, NAMES, TERMINATED, FitConfig, configure, loss_name
from .saved import count_ends, open_folder, read_sweep_result
from .sweeps import (
    Axis,
    Curves,
    Member,
    Prepared,
    Request,
    Row,
    Sampler,
    SweepWatch,
    SweepWatcher,
    curve_columns,
    curve_lines,
    curve_parquet,
    draw_sweep,
    join_curves,
    make_source,
    npz,
    parquet,
    prepare,
    read_axes,
    read_request,
    score,
    split_groups,
    unwatched_sweep,
    write_request,
)


@dataclass(frozen=True, repr=False)
class SweepRun:
    """A saved sweep."""

    directory: Path
    code: int  # the exit code of the program
    axes: list[Axis]
    rows: list[Row]  # of each member: index, varied values, status, steps and losses
    curves: Curves
    best: Row | None  # the row with the least validation loss, if there are validation points, else test loss
    seconds: float  # of the training, with compiling; of a resumed sweep, of all its parts
    total: int = 0  # members, with those that have not begun
    validation: Curves | None = None  # the validation losses of members; None without validation points
    loss: str = NAMES["mse"]  # what the losses are; of the best member

    @property
    def status(self) -> str:
        """done, diverged (every member), interrupted or terminated."""
        return {0: "done", 1: "diverged", INTERRUPTED: "interrupted", TERMINATED: "terminated"}[self.code]

    def counts(self) -> dict[str, int]:
        """Return how many members ended how, and how many have not begun."""
        return count_ends([row["status"] for row in self.rows], self.total)

    def __repr__(self) -> str:
        """Show at most twelve lines."""
        space = [f"  {str(axis)[:77]}" for axis in self.axes[:5]]
        ends = ", ".join(f"{count} {end}" for end, count in self.counts().items())
        lines = [f"SweepRun({self.directory})", *space, f"  status: {self.status}; members: {ends or 'none'}"]
        if self.best is not None:
            values = ", ".join(f"{axis.name}={self.best[axis.name]}" for axis in self.axes)
            lines.append(f"  best: member {self.best['index']}, test loss {self.best['test_loss']:.3e}, {values[:200]}")
        return "\n".join([*lines, f"  seconds: {self.seconds:.2f}"])


def sweep(
    config: FitConfig | Mapping[str, Any],
    space: Mapping[str, str | Iterable[Any]] | Iterable[str],
    *,
    sampler: Sampler = "grid",
    trials: int | None = None,
    stop_early: int | None = None,
    out: Path | None = None,
    watch: SweepWatch = unwatched_sweep,
    source: Mapping[str, Any] | None = None,
    executor: ExecutorLike | None = None,
) -> SweepRun:
    """Run a fit for each point of a space, and save all results in a new folder.

    `config` holds the options of `torchpure fit` that all members share, `space` the values of the others by name: a
    list, or a text such as "1e-4:1e-1:log:32", "0:32" or "16|64"; or `space` is texts in the form of `--vary`.
    Members that differ only in learning_rate, weight_decay and seed train side by side in one program. With
    `stop_early`, a member ends when its training loss has not reached a new minimum for so many steps. A member whose
    loss is not finite ends, too; the others go on. `source` says where the options come from; it is saved. With
    `executor`, chunks of members run in other processes, a window of steps at a time.

    Law: each member equals the run of its configuration, up to rounding.
    Law: the bits of a member do not depend on the values of the others, nor on the executor.

    Raises:
        InputError: an option, the space or the output folder is invalid.
        CheckpointError: a checkpoint cannot be written.

    >>> import torchpure as tp
    >>> tp.runs.sweep({"target": "2*sin(x)"}, {"learning_rate": "1e-4:1e-1:log:8", "seed": "0:4"})  # doctest: +SKIP
    SweepRun(runs/sweep-2-sin-x) ...
    """
    given = config.model_dump(exclude_unset=True, mode="json") if isinstance(config, FitConfig) else config
    options = {name: value for name, value in given.items() if value is not None}
    request = Request(options, read_axes(space, sampler), sampler, trials, _patience(stop_early))
    members = _first_members(request)
    first = prepare(members[:1], None, {})[0]
    config = members[0].config
    name = slug(f"sweep {label(config)}")
    with watch(config.threads) as watcher, new_folder(out, name, _has_checkpoint) as folder:
        content = write_request(request, _details(first) | {"members": _total(request, members)}, source)
        replace_file(folder / "config.json", content)
        replace_file(folder / "results.jsonl", b"")
        return _run(folder, request, watcher, _total(request, members), {}, executor)


def resume_sweep(
    folder: str | Path, watch: SweepWatch = unwatched_sweep, executor: ExecutorLike | None = None
) -> SweepRun:
    """Go on with a sweep that was interrupted or killed; groups that are finished are not run again.

    Law: the results equal those of a sweep that was not interrupted, bit for bit, on the same machine.

    Raises:
        InputError: it is no sweep, it is done, or its configuration or its data file has changed.
        CheckpointError: a checkpoint is damaged, or another process writes there.

    ::

        resume_sweep("runs/sweep-2-sin-x")
    """
    path = open_folder(Path(folder), "a sweep's folder")
    request, data = read_request(path)
    before = read_sweep_result(path)
    if before.get("status") in ("done", "diverged"):
        raise InputError(
            f"{path}: the sweep is {before['status']}; wanted one that was interrupted or killed; "
            f"to train longer, sweep again with more --steps"
        )
    members = _first_members(request)
    if prepare(members[:1], None, {})[0].data[0].sha256 != data.get("sha256"):
        raise InputError(f"{members[0].config.target}: has changed since the sweep {path}")
    with watch(members[0].config.threads) as watcher:
        return _run(path, request, watcher, _total(request, members), before, executor)


def _run(
    folder: Path,
    request: Request,
    watcher: SweepWatcher,
    total: int,
    before: Mapping[str, Any],
    executor: ExecutorLike | None,
) -> SweepRun:
    with open_checkpoints(folder, "checkpoints", keep=1, every=1):  # no other process may write results meanwhile
        return _run_groups(Sweeping(folder, request, watcher, executor), total, before)


def _run_groups(going: Sweeping, total: int, before: Mapping[str, Any]) -> SweepRun:
    folder, request, code = going.folder, going.request, 0
    start, processor = time.perf_counter(), time.process_time()
    source = make_source(request.axes, request.sampler, request.trials, _seed(request))
    try:
        while points := source.ask():
            members = _members(request, points, len(going.rows))
            groups = split_groups(members)
            known = going.groups + len(groups)
            if not all(going.group(group, known, total) for group in groups):
                code = TERMINATED if going.watcher.stop() == signal.SIGTERM else INTERRUPTED
                break
            source.tell([score(row) for row in going.rows[-len(members) :]])
    except BaseException as error:
        if _has_checkpoint(folder):
            error.add_note(f"the steps before are saved: `torchpure resume {folder}` goes on from them")
        raise
    if not code and all(row["status"] == "diverged" for row in going.rows):
        code = 1
    seconds = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - processor}
    return _finish(going, code, total, {name: value + before.get(name, 0.0) for name, value in seconds.items()})


def _finish(going: Sweeping, code: int, total: int, seconds: Mapping[str, float]) -> SweepRun:
    folder, curves = going.folder, join_curves(going.curves)
    validation = join_curves(going.validations) if going.validations else None
    best = going.best.row if going.best else None
    axes, rows = going.request.axes, going.rows
    loss = NAMES[loss_name(going.best.config, going.best.data.preprocessing)] if going.best else NAMES["mse"]
    result = SweepRun(folder, code, axes, rows, curves, best, seconds["seconds"], total, validation, loss)
    table, columns = parquet(rows), curve_columns(curves, validation)
    if table is not None:
        replace_file(folder / "results.parquet", table)
    in_rows = curve_parquet(columns)
    name = "curves.jsonl" if in_rows is None else "curves.parquet"
    replace_file(folder / name, curve_lines(columns) if in_rows is None else in_rows)
    replace_file(folder / "curves.npz", npz(curves, validation))
    if going.best:
        save_best(folder / "best", going.best)
    draw_sweep(folder, axes, rows, curves)
    last = {
        "status": result.status,
        "members": result.counts(),
        "steps": sum(row["steps"] for row in rows),
        "best": best and best["index"],
        **seconds,
        "threads": torch.get_num_threads(),
    }
    replace_file(folder / "result.json", json.dumps(last, indent=2).encode() + b"\n")
    return result


def _first_members(request: Request) -> list[Member]:
    """Return the members of the first round, after a check that each of their groups can be made."""
    points = make_source(request.axes, request.sampler, request.trials, _seed(request)).ask()
    members = _members(request, points, 0)
    for group in split_groups(members, by_seed=False)[1:]:
        prepare(group[:1], None, {})
    return members


def _members(request: Request, points: list[dict[str, Any]], first: int) -> list[Member]:
    return [
        Member(number, point, configure(request.options | point)) for number, point in enumerate(points, start=first)
    ]


def _total(request: Request, first: list[Member]) -> int:
    """Return the number of members; the first round of a study has only some."""
    return request.trials or len(first)


def _seed(request: Request) -> int:
    return int(request.options.get("seed", 0))


def _patience(stop_early: int | None) -> int | None:
    if stop_early is not None and (isinstance(stop_early, bool) or stop_early < 1):
        raise InputError(f"--stop-early: wanted a number of steps, at least 1, got {stop_early}")
    return stop_early


def _has_checkpoint(folder: Path) -> bool:
    return any(True for _ in (folder / "checkpoints").glob("group-*/step-*"))


def _details(first: Prepared) -> dict[str, Any]:
    """Return what `config.json` says of the first member and its data."""
    described = json.loads(describe_run(first.members[0].config, first.data[0]))
    return {name: described[name] for name in ("config", "data")}
