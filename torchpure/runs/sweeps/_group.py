"""Run a group of members in windows of steps: chunk by chunk, saved between windows, ended by a signal."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Params
from torchpure.checkpoints import Checkpointer
from torchpure.jit.native import on_one_thread
from torchpure.train.executors import ExecutorLike, pack, run_tasks
from torchpure.train.executors import Task as SentTask

from ._batches import Batches
from ._recipe import run_window
from ._streamed import StreamedBatches
from ._train import Inputs, Programs, State, Task

WIDTHS = (64, 16, 4, 1)  # members at once; multiples of 16 fill vector registers, so that members have equal programs
MAX_VALUES = 2**26  # that one step of a chunk saves for its backward pass
WINDOW_PRODUCTS = 1e8  # of one chunk and window: some tenths of a second
MAX_WINDOW = 1000  # steps
MIN_COMPILED = 200  # steps times chunks; below, compiling takes longer than it saves
CURVE = 200  # points of a curve, about
VALIDATIONS = 25  # points of a curve of validation losses, about
Validate = Callable[[Params, Tensor], Tensor]  # (stacked parameters, their members) -> losses, (members,)


class Position(NamedTuple):
    """Where a group stands."""

    step: int  # steps done, by members that did not stop
    state: State
    curves: Tensor  # float64, (report steps, members); NaN where a member has no loss
    validation: Tensor | None = None  # the same for `validation_steps`; None without validation points


class Group(NamedTuple):
    """Members that run as one program."""

    programs: Programs
    inputs: Inputs
    seed_index: Tensor  # (members,): the row of a member in inputs.x and inputs.y, if these have several
    products: int  # of numbers, that one member's loss takes
    values: int  # that one member's step saves for its backward pass
    batches: Batches | StreamedBatches | None = None  # None: each step takes all points
    validate: Validate | None = None  # None: there are no validation points
    executor: ExecutorLike | None = None  # None: chunks run in this process

    @property
    def task(self) -> Task:
        """What its members share."""
        return self.programs.task


def report_steps(steps: int) -> list[int]:
    """Return the steps, from 1, whose losses a curve has: evenly spaced, and the last.

    >>> report_steps(3), report_steps(1000)[:3]
    ([1, 2, 3], [1, 5, 10])
    """
    stride = -(-steps // CURVE)
    return sorted({1, *range(stride, steps + 1, stride), steps})


def validation_steps(group: Group, count: int) -> list[int]:
    """Return the steps after which validation losses of `count` members are known: ends of windows, and the last."""
    if group.validate is None:
        return []
    length = window_length(group, chunk_width(group, count))
    gap, found, step = group.task.steps // VALIDATIONS, [0], 0
    while step < group.task.steps:
        step = min(step + _steps_at(group, step, length), group.task.steps)
        if step - found[-1] >= gap or step == group.task.steps:
            found.append(step)
    return found[1:]


def run_group(
    group: Group,
    start: State,
    checkpointer: Checkpointer,
    report: Callable[[Position], None],
    stop: Callable[[], int],
) -> Position:
    """Run until all steps are done, all members have stopped or a signal comes; the last position is saved.

    With a checkpoint the group goes on from there. The windows, and so the bits, depend on the group alone.

    Raises:
        CheckpointError: a checkpoint cannot be read or written.
    """
    steps = report_steps(group.task.steps)
    saved = checkpointer.latest() or 0
    position = Position(saved, start, _empty_curves(steps, start), _empty_validation(group, start))
    if saved:
        restored = checkpointer.restore(saved, like=_asdict(position))
        position = Position(saved, restored["state"], restored["curves"], restored.get("validation"))
    try:
        for newest in _windows(group, position, torch.tensor(steps) - 1, stop):
            position = newest
            report(position)
            if position.step // checkpointer.every > saved // checkpointer.every and not checkpointer.busy():
                saved = position.step
                checkpointer.save(saved, _asdict(position))
    finally:
        if position.step > saved:
            checkpointer.save(position.step, _asdict(position))
        checkpointer.wait()
    return position


def _empty_curves(steps: list[int], start: State) -> Tensor:
    return torch.full((len(steps), len(start.steps)), math.nan, dtype=torch.float64)


def _empty_validation(group: Group, start: State) -> Tensor | None:
    steps = validation_steps(group, len(start.steps))
    return _empty_curves(steps, start) if steps else None


def _asdict(position: Position) -> dict[str, Any]:
    return {name: value for name, value in position._asdict().items() if value is not None}


def is_finished(group: Group, position: Position) -> bool:
    """Return whether no member has a step left."""
    return position.step >= group.task.steps or not bool(position.state.running.any())


def _windows(group: Group, position: Position, numbers: Tensor, stop: Callable[[], int]) -> Iterator[Position]:
    """Run the windows after a position; yield where the group then stands."""
    count = len(position.state.steps)
    width = chunk_width(group, count)
    length = window_length(group, width)
    chunks = [torch.arange(first, first + width).clamp(max=count - 1) for first in range(0, count, width)]
    states = [_take(position.state, chunk) for chunk in chunks]
    given = _Given(group, chunks, length, stop)
    validated = validation_steps(group, count)
    while not is_finished(group, position):
        taken = _steps_at(group, position.step, length)
        run_all = _in_threads if group.executor is None else _on_executor
        results = run_all(given, states, position.step)
        if results is None:
            return  # the window is run again when the sweep goes on
        states = [state for state, _ in results]
        losses = torch.cat([losses[:, :taken] for _, losses in results])[:count].cpu()
        end = min(position.step + taken, group.task.steps)
        due = (numbers >= position.step) & (numbers < end)
        curves = position.curves.clone()
        curves[due] = losses[:, numbers[due] - position.step].T
        joined = tree.map(lambda *leaves: torch.cat(leaves)[:count], *states)
        validation = position.validation
        if group.validate is not None and validation is not None and end in validated:
            validation = validation.clone()
            validation[validated.index(end)] = _validation_losses(group.validate, joined, end, width)
        position = Position(end, joined, curves, validation)
        yield position


def _steps_at(group: Group, step: int, length: int) -> int:
    return length if group.batches is None else group.batches.steps_at(step, length)


def _validation_losses(validate: Validate, state: State, step: int, width: int) -> Tensor:
    """Return the validation losses of the members that have made all steps so far, NaN for others."""
    chunks = torch.arange(len(state.steps)).split(width)
    losses = torch.cat([validate(_take(state, chunk).params, chunk) for chunk in chunks])
    return torch.where(state.steps == step, losses, math.nan).cpu()


class _Given:
    """What the program of each chunk takes."""

    def __init__(self, group: Group, chunks: list[Tensor], length: int, stop: Callable[[], int]) -> None:
        self.group, self.chunks, self.length, self.stop = group, chunks, length, stop
        shared, compiled = len(group.inputs.x) == 1, len(chunks) * group.task.steps >= MIN_COMPILED
        streamed = isinstance(group.batches, StreamedBatches)
        self.kind = {
            "shared": shared,
            "batches": group.batches is not None,
            "compiled": compiled,
            "streamed": streamed,
        }
        self._inputs = [_chunk_inputs(group, chunk, shared=shared) for chunk in chunks]

    def arguments(self, i: int, state: State, step: int) -> tuple[State, Inputs, Tensor, Any]:
        batches, device = self.group.batches, self.group.inputs.x.device
        if batches is None:
            return state, self._inputs[i], torch.arange(step, step + self.length, device=device), None
        numbers, rows = batches.window(self.chunks[i], step, self.length, self.group.task.steps)
        return state, self._inputs[i], numbers.to(device), tree.map(lambda leaf: leaf.to(device), rows)

    def without_steps(self, state: State) -> tuple[State, Tensor]:
        """Return the result of a chunk none of whose members runs."""
        return state, torch.full((len(state.steps), self.length), math.nan, dtype=torch.float64)

    def run(self, i: int, state: State, step: int) -> tuple[State, Tensor] | None:
        """Run one chunk for a window of steps; return None if a signal came."""
        if self.stop():
            return None
        if not state.running.any():
            return self.without_steps(state)
        return self.group.programs.get(**self.kind)(*self.arguments(i, state, step))


def chunk_width(group: Group, count: int) -> int:
    """Return how many members run at once; it depends on the sizes alone, because the last bits depend on it."""
    fitting = [width for width in WIDTHS if width * group.values <= MAX_VALUES] or [1]
    return fitting[0] if count > 16 or fitting[0] <= 16 else 16


def window_length(group: Group, width: int) -> int:
    """Return the steps of a window: few enough that a window takes a fraction of a second; windows are even."""
    longest = min(max(int(WINDOW_PRODUCTS / (width * group.products)), 1), MAX_WINDOW)
    if group.validate is not None:
        longest = min(longest, -(-group.task.steps // VALIDATIONS))
    longest = longest if group.batches is None else min(longest, group.batches.longest())
    return -(-group.task.steps // -(-group.task.steps // longest))


def _on_executor(given: _Given, states: list[State], step: int) -> list[tuple[State, Tensor]] | None:
    """Run all chunks in other processes; return None if a signal came. What a lost worker had begun runs again."""
    if given.stop():
        return None
    group, device = given.group, given.group.inputs.x.device
    assert group.executor is not None
    results = [given.without_steps(state) for state in states]
    places = [i for i, state in enumerate(states) if state.running.any()]
    tasks = []
    for i in places:
        label = f"chunk {i} of a group of {len(group.seed_index)} members"
        tasks.append(
            SentTask(label, (group.programs.recipe, given.kind, pack(given.arguments(i, states[i], step))), {})
        )
    for number, result in run_tasks("sweep", group.executor, run_window, tasks):
        results[places[number]] = tree.map(lambda leaf: leaf.to(device), result)
    return results


def _in_threads(given: _Given, states: list[State], step: int) -> list[tuple[State, Tensor]] | None:
    """Run all chunks, each on one thread; return None if a signal came."""
    run_chunk = given.run
    results = [run_chunk(0, states[0], step)]  # this thread compiles
    workers = min(torch.get_num_threads(), len(states) - 1)

    def run_alone(i: int) -> tuple[State, Tensor] | None:
        with on_one_thread():
            return run_chunk(i, states[i], step)

    if workers < 2:
        results += [run_chunk(i, states[i], step) for i in range(1, len(states))]
    else:
        with ThreadPoolExecutor(workers) as pool:
            results += pool.map(run_alone, range(1, len(states)))
    complete = [result for result in results if result is not None]
    return complete if len(complete) == len(states) else None


def _chunk_inputs(group: Group, chunk: Tensor, *, shared: bool) -> Inputs:
    x, y, *others = group.inputs
    rows = group.seed_index[chunk]
    points = (x[0], y[0]) if shared else (x[rows], y[rows])
    return Inputs(*points, *(values[chunk] for values in others))


def _take(state: State, chunk: Tensor) -> State:
    return tree.map(lambda leaf: leaf[chunk.to(leaf.device)], state)
