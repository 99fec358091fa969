"""The training loop: optimizer steps along the gradient of a loss, with reports of progress."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchpure._types import Params, State, Tree
from torchpure.checkpoints.sharded import has_distributed
from torchpure.optim import Optimizer
from torchpure.optim.core import check_optimizer

from ._advance import Extras
from ._counts import checked_count
from ._divergence import OnNonfinite, check_policy, divergence_of, refuse_members, refuse_nonfinite
from ._resume import Arguments, Checkpoint, Position, Store, open_store, steps_per_window
from ._step_state import split_step_state
from ._steps import Carry, Runner, make_step
from ._windows import Window, batch_windows
from .callbacks import Progress
from .processes import DataParallel, data_parallel

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def loop(
    loss: Callable[..., Tensor | tuple[Tensor, State]],
    params: Params,
    batches: Iterable[Any],
    optimizer: Optimizer[Any],
    opt_state: Any = None,
    state: State | None = None,
    *,
    every: int = 1,
    on_nonfinite: OnNonfinite | None = None,
    jit: bool = True,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
    mesh: "DeviceMesh | None" = None,
) -> Generator[Progress]:
    """Make one optimizer step per batch on `loss(params, *batch)`; yield Progress after each `every` and the last step.

    A batch is a tuple or a list of arguments; a dict, a tensor or another object is one argument.

    With a state, such as a model's buffers, the loss is `loss(params, state, *batch) -> (value, new state)`.

    The steps between two Progress run as one compiled loop, if their batches have equal shapes. So `every` batches are
    read before they run. They are stacked by a copy, at most 64 MB at a time, unless all are the same tuple. Runs of
    fewer than 200 steps are not compiled, because compiling takes longer. With `every=1` a single step is compiled,
    after the first 1,000 steps. With `jit=False` nothing is compiled. `on_nonfinite` is as in `fit`.

    With `checkpoint`, a folder or a `Checkpointer`, the run is saved between windows of steps and at its end, also when
    it is interrupted or the iterator is closed. With `resume=True` it goes on from the newest checkpoint, if there is
    one: `batches` are read from their beginning, and those of steps already made are passed over.

    With `mesh`, each process takes its rows of every batch, and the first one alone writes checkpoints, as in `fit`.

    Law: the steps are the same for every `every` and `jit`, up to rounding.
    Law: a resumed run equals the uninterrupted one bit for bit.

    Raises:
        ValueError: `every` is not an integer of at least 1; `on_nonfinite` is not one of its names; the folder has
            checkpoints and `resume` is not given; they are of a run with other arguments.
        NonFiniteError: with on_nonfinite="raise", the loss or a gradient is not finite.
        TypeError: `optimizer` is no optimizer of this library.
        TransformError: `loss` does not return a real tensor of shape (), or cannot be compiled.
        CheckpointError: a checkpoint cannot be written or read.
        MeshError: another process of the mesh has failed, or cannot write or read a checkpoint.

    >>> import torch, torchpure as tp
    >>> steps = loop(lambda p, x: (p - x) ** 2, torch.tensor(0.0), [(torch.tensor(1.0),)] * 3, tp.optim.sgd(0.25))
    >>> [round(progress.params.item(), 3) for progress in steps]
    [0.5, 0.75, 0.875]
    """
    every = checked_count("loop", "every", every)
    check_optimizer("loop", optimizer)
    check_policy("loop", on_nonfinite)
    extras = Extras(on_nonfinite)
    over = data_parallel("loop", mesh)
    step = make_step(
        loss, optimizer, lambda shared, per_step: per_step.get("batch", shared), extras.advance(optimizer), over
    )
    opt_state = optimizer.init(params) if opt_state is None else opt_state
    carry = (params, extras.start(opt_state, params), state)
    refuse = partial(refuse_nonfinite, "loop") if on_nonfinite == "raise" else None
    size = steps_per_window(checkpoint, every) or every

    def windows(first: int = 0, unread: int = 0) -> Iterator[Window]:
        if first:
            raise ValueError(
                f"loop: the run was saved after step {first}, where no window of these batches ends: the saved run had "
                "batches of other shapes"
            )
        return batch_windows(step, map(_as_arguments, batches), size if jit else 1, every)

    def arguments() -> Arguments:
        return {"every": every, "jit": jit, "steps per window": size, "on_nonfinite": on_nonfinite}

    with started("loop", carry, checkpoint, resume, arguments, over) as (store, start):
        last = yield from run_windows(start, windows, jit=jit, store=store, refuse=refuse)
    if refuse and last is not None:
        refuse_members("loop", last.divergence, last)


def _as_arguments(batch: Any) -> tuple[Any, ...]:
    """Return a batch as arguments of the loss: a dict, a tensor or another object is one argument."""
    return batch if isinstance(batch, tuple) else tuple(batch) if isinstance(batch, list) else (batch,)


@contextmanager
def started(
    caller: str,
    carry: Carry,
    checkpoint: Checkpoint | None,
    resume: bool,
    arguments: Callable[[], Arguments],
    over: DataParallel | None,
    callback_state: Callable[[], Tree] = lambda: None,
) -> Iterator[tuple[Store, Position]]:
    """Yield the store of a run, and where it starts.

    The first process of a mesh alone reads and writes what all have whole. Parts are read and written by all.

    Raises:
        ValueError, TypeError, TransformError, CheckpointError: as `open_store`.
        MeshError: the first process cannot read or write its checkpoints.
    """
    of_first = None if checkpoint is None or has_distributed(carry) else over
    if of_first is not None and not of_first.is_first:
        checkpoint, resume = None, False
    with ExitStack() as stack:
        store = open_store(caller, checkpoint, resume, arguments)

        def open_and_start() -> tuple[Store, Position]:
            opened = stack.enter_context(store)
            opened.callback_state = callback_state()
            return opened, opened.start(carry)

        yield open_and_start() if of_first is None else _start_together(of_first, open_and_start, carry)


def _start_together(
    over: DataParallel, open_and_start: Callable[[], tuple[Store, Position]], carry: Carry
) -> tuple[Store, Position]:
    """Open the store of a run, and start every process where the first one starts.

    Raises:
        MeshError: the first process cannot read or write its checkpoints.
    """
    opened: list[Store] = []

    def first() -> tuple[Any, list[Tensor]]:
        store, start = open_and_start()
        opened.append(store)
        return (torch.tensor([start.step, len(store.history)]), start.carry), [*store.history, *start.unreported]

    if not over.is_first:
        opened.append(open_and_start()[0])
    (numbers, carry), losses = over.from_first(first, (torch.zeros(2, dtype=torch.int64), carry))
    step, history = numbers.tolist()
    opened[0].history = losses[:history]
    return opened[0], Position(step, carry, losses[history:])


def run_windows(
    start: Position,
    windows: Callable[..., Iterator[Window]],
    *,
    jit: bool,
    store: Store,
    refuse: Callable[[Carry], None] | None = None,
) -> Generator[Progress, None, Progress | None]:
    """Run windows of steps; yield Progress after the windows that ask for it, and after the last, which is returned.

    `windows` takes `first`, the number of steps to pass over, and `unread`, that of steps whose batches need not be
    read. After each window `refuse(carry)` may raise an error.

    Raises:
        TransformError: the loss does not return a real tensor of shape (), or cannot be compiled.
        CheckpointError: a checkpoint cannot be written or read.
    """
    runner = Runner(jit)
    number, carry, unreported = start
    last = None
    for window in _windows_after(number, windows, runner):
        carry, losses = runner.run(carry, window)
        if refuse is not None:
            refuse(carry)
        unreported.append(losses)
        number += window.steps
        if window.reports:
            last = yield from _report(number, carry, unreported, store)
            unreported = []
        else:
            store.note(number, carry, unreported)
    if unreported:
        last = yield from _report(number, carry, unreported, store)
    return last


def _report(number: int, carry: Any, parts: list[Tensor], store: Store) -> Generator[Progress, None, Progress]:
    """Yield a Progress, note the position when the caller has taken it in, and return it."""
    progress = _progress(number, carry, parts)
    try:
        yield progress
    except GeneratorExit:  # the caller has seen it, and wants no more
        if not store.closed:
            store.note(number, carry, [])
        raise
    store.note(number, carry, [])
    return progress


def _windows_after(number: int, windows: Callable[..., Iterator[Window]], runner: Runner) -> Iterator[Window]:
    """Return the windows after `number` steps; the runner counts those before."""
    if number == 0:
        return windows()
    passed, planned = 0, windows(unread=number)
    while passed < number:
        window = next(planned, None)
        if window is None:
            break
        runner.skip(window)
        passed += window.steps
    return planned if passed == number else windows(first=number)


def _progress(number: int, carry: Any, parts: list[Tensor]) -> Progress:
    losses = torch.cat(parts) if len(parts) > 1 else parts[0]
    params, held, state = carry
    opt_state, guard, observed = split_step_state(held)
    return Progress(number, losses[-1], params, opt_state, state, losses, divergence_of(guard, params), observed)
