"""The training loop: optimizer steps along the gradient of a loss, with reports of progress."""

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Params, State
from torchpure.optim import Optimizer
from torchpure.optim.core import check_optimizer
from torchpure.tree.summaries import shown, totals

from ._resume import Arguments, Checkpoint, Position, Store, open_store, steps_per_window
from ._steps import Runner, make_step
from ._windows import Window, batch_windows


class Progress(NamedTuple):
    """The state of a run after a step."""

    step: int  # the number of steps made, from 1
    loss: Tensor  # of this step's batch, before the update; shape ()
    params: Params  # after the update
    opt_state: Any
    state: State | None  # of the model, after the step; None if the loss takes no state
    losses: Tensor  # of all steps since the last Progress; shape (steps,)

    def __repr__(self) -> str:
        return f"Progress: step {self.step:,}, loss {shown(self.loss)}, params: {totals(self.params)}"


def loop(
    loss: Callable[..., Tensor | tuple[Tensor, State]],
    params: Params,
    batches: Iterable[tuple[Any, ...]],
    optimizer: Optimizer[Any],
    opt_state: Any = None,
    state: State | None = None,
    *,
    every: int = 1,
    jit: bool = True,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
) -> Generator[Progress]:
    """Make one optimizer step per batch on `loss(params, *batch)`; yield Progress after each `every` and the last step.

    With a state, such as a model's buffers, the loss is `loss(params, state, *batch) -> (value, new state)`.

    The steps between two Progress run as one compiled loop, if their batches have equal shapes. So `every` batches are
    read before they run. They are stacked by a copy, at most 64 MB at a time, unless all are the same tuple. Runs of
    fewer than 200 steps are not compiled, because compiling takes longer. With `every=1` a single step is compiled,
    after the first 1,000 steps. With `jit=False` nothing is compiled.

    With `checkpoint`, a folder or a `Checkpointer`, the run is saved between windows of steps and at its end, also when
    it is interrupted or the iterator is closed. With `resume=True` it goes on from the newest checkpoint, if there is
    one: `batches` are read from their beginning, and those of steps already made are passed over.

    Law: the steps are the same for every `every` and `jit`, up to rounding.
    Law: a resumed run equals the uninterrupted one bit for bit.

    Raises:
        ValueError: `every` is not an integer of at least 1; the folder has checkpoints and `resume` is not given; they
            are of a run with other arguments.
        TypeError: `optimizer` is no optimizer of this library.
        TransformError: `loss` does not return a real tensor of shape (), or cannot be compiled.
        CheckpointError: a checkpoint cannot be written or read.

    >>> import torch, torchpure as tp
    >>> steps = loop(lambda p, x: (p - x) ** 2, torch.tensor(0.0), [(torch.tensor(1.0),)] * 3, tp.optim.sgd(0.25))
    >>> [round(progress.params.item(), 3) for progress in steps]
    [0.5, 0.75, 0.875]
    """
    check_every("loop", every)
    check_optimizer("loop", optimizer)
    step = make_step(loss, optimizer, lambda shared, per_step: per_step.get("batch", shared))
    carry = (params, optimizer.init(params) if opt_state is None else opt_state, state)
    size = steps_per_window(checkpoint, every) or every

    def windows(first: int) -> Iterator[Window]:
        if first:
            raise ValueError(
                f"loop: the run was saved after step {first}, where no window of these batches ends: the saved run had "
                "batches of other shapes"
            )
        return batch_windows(step, batches, size if jit else 1, every)

    def arguments() -> Arguments:
        return {"every": every, "jit": jit, "steps per window": size}

    with open_store("loop", checkpoint, resume, arguments) as store:
        yield from run_windows(store.start(carry), windows, jit=jit, store=store)


def run_windows(
    start: Position, windows: Callable[[int], Iterator[Window]], *, jit: bool, store: Store
) -> Generator[Progress]:
    """Run windows of steps; yield Progress after the windows that ask for it, and after the last.

    `windows` takes the number of steps to pass over.

    Raises:
        TransformError: the loss does not return a real tensor of shape (), or cannot be compiled.
        CheckpointError: a checkpoint cannot be written or read.
    """
    runner = Runner(jit)
    number, carry, unreported = start
    for window in _windows_after(number, windows, runner):
        carry, losses = runner.run(carry, window)
        unreported.append(losses)
        number += window.steps
        if window.reports:
            yield from _report(number, carry, unreported, store)
            unreported = []
        else:
            store.note(number, carry, unreported)
    if unreported:
        yield from _report(number, carry, unreported, store)


def _report(number: int, carry: Any, parts: list[Tensor], store: Store) -> Iterator[Progress]:
    """Yield a Progress, and note the position when the caller has taken it in."""
    try:
        yield _progress(number, carry, parts)
    except GeneratorExit:  # the caller has seen it, and wants no more
        store.note(number, carry, [])
        raise
    store.note(number, carry, [])


def _windows_after(number: int, windows: Callable[[int], Iterator[Window]], runner: Runner) -> Iterator[Window]:
    """Return the windows after `number` steps; the runner counts those before."""
    if number == 0:
        return windows(0)
    passed, planned = 0, windows(0)
    while passed < number:
        window = next(planned, None)
        if window is None:
            break
        runner.skip(window)
        passed += window.steps
    return planned if passed == number else windows(number)


def _progress(number: int, carry: Any, parts: list[Tensor]) -> Progress:
    losses = torch.cat(parts) if len(parts) > 1 else parts[0]
    params, opt_state, state = carry
    return Progress(number, losses[-1], params, opt_state, state, losses)


def check_every(caller: str, every: Any) -> None:
    """Check that `every` is a number of steps.

    Raises:
        ValueError: it is not an integer of at least 1.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"{caller}: every must be an integer, at least 1, got {every!r}")
