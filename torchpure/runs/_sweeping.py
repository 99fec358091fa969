"""A sweep while it goes on: its groups are run one after another, and their results are written."""

import math
from collections.abc import Callable, Hashable
from pathlib import Path

import torch

from torchpure.train.executors import ExecutorLike

from ._folder import open_checkpoints, replace_file
from ._sweep_best import Best, better
from .fits import MAX_STEPS
from .sweeps import (
    Member,
    Position,
    Prepared,
    Programs,
    Request,
    Row,
    SweepProgress,
    SweepWatcher,
    evaluate,
    group_label,
    is_finished,
    json_lines,
    prepare,
    report_steps,
    run_group,
    validation_steps,
)


class Sweeping:
    """What is known of the members."""

    def __init__(
        self, folder: Path, request: Request, watcher: SweepWatcher, executor: ExecutorLike | None = None
    ) -> None:
        self.folder, self.request, self.watcher, self.executor = folder, request, watcher, executor
        self.rows: list[Row] = []
        self.curves: list[tuple[list[int], list[int], torch.Tensor]] = []
        self.validations: list[tuple[list[int], list[int], torch.Tensor]] = []
        self.best: Best | None = None
        self.groups = 0  # that were started
        self.programs: dict[Hashable, Programs] = {}
        self.least = (math.inf, -1)  # training loss, member

    def group(self, members: list[Member], known: int, total: int) -> bool:
        """Run a group or take it from its checkpoint; return whether it is finished."""
        parts = prepare(members, self.request.stop_early, self.programs)
        return all(self._run_part(prepared, known + len(parts) - 1, total) for prepared in parts)

    def _run_part(self, prepared: Prepared, known: int, total: int) -> bool:
        every = prepared.members[0].config.checkpoint_every or MAX_STEPS + 1
        place = f"checkpoints/group-{self.groups:05}"
        with open_checkpoints(self.folder, place, keep=1, every=every) as checkpointer:
            report = self._reporter(prepared.members, known, total)
            group = prepared.group._replace(executor=self.executor)
            position = run_group(group, prepared.start, checkpointer, report, self.watcher.stop)
        self.groups += 1
        self._take(prepared, position)
        return is_finished(prepared.group, position)

    def _take(self, prepared: Prepared, position: Position) -> None:
        outcome = evaluate(prepared, position)
        self.rows = sorted([*self.rows, *outcome.rows], key=lambda row: row["index"])
        indices = [member.index for member in prepared.members]
        self.curves.append((indices, report_steps(prepared.group.task.steps), position.curves))
        if position.validation is not None:
            steps = validation_steps(prepared.group, len(indices))
            self.validations.append((indices, steps, position.validation))
        self.best = better(self.best, prepared, position, outcome)
        replace_file(self.folder / "results.jsonl", json_lines(self.rows))

    def _reporter(self, members: list[Member], known: int, total: int) -> Callable[[Position], None]:
        ended, failed = len(self.rows), sum(row["status"] == "diverged" for row in self.rows)
        label, group = group_label(members), self.groups

        def report(position: Position) -> None:
            state = position.state
            place = int(state.best.argmin())
            self.least = min(self.least, (float(state.best[place]), members[place].index))
            running = int(state.running.sum()) if position.step < members[0].config.steps else 0
            self.watcher.report(
                SweepProgress(
                    group=group,
                    groups=known,
                    label=label,
                    step=position.step,
                    steps=members[0].config.steps,
                    members=len(members),
                    running=running,
                    all_members=total,
                    finished=ended + len(members) - running,
                    failed=failed + int((~state.finite).sum()),
                    best=self.least[0],
                    best_index=self.least[1],
                )
            )

        return report
