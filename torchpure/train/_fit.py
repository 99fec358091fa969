"""Fit a model to data."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure import random, tree
from torchpure._types import Key, Params, State
from torchpure.model import Functional
from torchpure.optim import Optimizer
from torchpure.tree.summaries import counted, shown, summary, totals

from ._advance import Extras
from ._batches import BatchSource
from ._counts import checked_count
from ._data import BatchReader, Data, float_dtype
from ._divergence import OnNonfinite, check_policy, divergence_of, refuse_members, refuse_nonfinite
from ._epochs import count_steps
from ._loop import run_windows, started
from ._precision import accumulated, mixed_precision
from ._problem import Problem, check_kinds, make_problem
from ._resume import Arguments, Checkpoint, Position, Store, hash_of, steps_per_window
from ._step_state import split_step_state
from ._steps import make_step
from .callbacks import Callback, Divergence, Progress, as_callback, updated
from .processes import DataParallel, data_parallel
from .tables import DatasetBatches, is_dataset, is_table, read_table

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Fit(NamedTuple):
    """The result of a fit."""

    params: Params
    state: State  # the buffers of the module, after the last step; empty for a loss function
    opt_state: Any
    history: Tensor  # the loss at each step, before its update; shape (steps,)
    divergence: Divergence | None = None  # with on_nonfinite=
    callback_state: Any = None  # the last state of `callback`

    def __repr__(self) -> str:
        steps = self.history.shape[-1] if self.history.ndim else 0
        losses = f", loss {shown(self.history[..., 0])} to {shown(self.history[..., -1])}" if steps else ""
        plain = self.history.ndim == 1 and tree.unwatched()  # a traced history has no numbers
        bad = (~self.history.isfinite()).nonzero().flatten().tolist() if plain else []
        losses += f" (not finite from step {bad[0] + 1} on: a smaller learning rate?)" if bad else ""
        first, *shapes = summary(self.params)
        state = [f"  state: {totals(self.state)}"] if tree.leaves(self.state) else []
        found = [] if self.divergence is None else [f"  {self.divergence!r}"]
        return "\n".join(
            [
                f"Fit: {counted(steps, 'step')}{losses}",
                f"  params: {first}",
                *(f"  {line}" for line in shapes),
                *state,
                *found,
                f"  opt_state: {type(self.opt_state).__name__}, {totals(self.opt_state)}",
            ]
        )


def fit(
    model: nn.Module | Functional | Callable[..., Tensor],
    data: Tensor | Iterable[Any] | Mapping[str, Any],
    *,
    optimizer: Optimizer[Any],
    steps: int | None = None,
    epochs: int | None = None,
    key: Key | None = None,
    params: Params = None,
    opt_state: Any = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    columns: Sequence[str] | None = None,
    batch_size: int | None = None,
    every: int | None = None,
    callback: Callable[[Progress], object] | Callback[Any] | Sequence[Any] | None = None,
    on_nonfinite: OnNonfinite | None = None,
    accumulate: int = 1,
    compute_dtype: torch.dtype | None = None,
    jit: bool = True,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
    mesh: "DeviceMesh | None" = None,
) -> Fit:
    """Minimise a loss over data, starting at the model's own values or at `params`.

    `model` is a module, with a loss `loss(output, target)` that defaults to the mean square, or it is itself a loss
    function `loss(params, *batch)`, which needs `params`. `data` is tensors (inputs …, target) with the same number of
    rows, or an iterable of such batches, repeated as often as needed. NumPy arrays are converted. A loss function gets
    a dict of tensors as it is; for a module its values count in order. A table with the Arrow C stream interface, as of
    Polars, DuckDB or pyarrow, counts as a dict of the `columns` named; for a module the last one is the target. A
    `pyarrow.dataset.Dataset`, or the path of a file, of a folder or a pattern such as Path("data/*.parquet"), is read
    in blocks, so that it may be larger than memory. Instead of `steps`, `epochs` counts passes over the data. With
    `batch_size`, `key` gives the order of the rows; draws of the module, such as dropout, come from `key` too.
    Parameters without requires_grad do not change; the module's buffers are updated and returned. To continue a fit,
    pass its `params` and its `opt_state`.

    Runs of at least 200 steps are compiled: `every` steps form one program, by default up to 1,000. After each `every`
    steps `callback` gets `Progress`: a function, whose true result ends the run, a `Callback`, or a list of these.
    With `jit=False` nothing is compiled.

    With `on_nonfinite`, a loss or gradient that is not finite is found before its update is applied. "raise" ends the
    run with an error, "skip" leaves out that step, "freeze" that one and all later ones, and "reduce_rate" leaves it
    out and halves all later updates. `Fit.divergence` says what happened.

    With `accumulate` k, each step takes one batch, and every k-th step updates with the mean of the last k gradients.
    With `compute_dtype=torch.bfloat16`, the loss computes in bfloat16; parameters, state and losses stay float32.

    With `checkpoint`, a folder or a `Checkpointer`, the run is saved between windows of steps and at its end, also when
    it is interrupted; a save that would take more than 2 % of the time waits. With `resume=True` it goes on from the
    newest checkpoint, if there is one; `steps` may be larger.

    With `mesh`, of `tp.make_mesh`, each process takes an equal part of the rows of every batch: the axis "data" splits
    them, or the only axis. Every process gives the same arguments and gets the same result. The first one alone runs
    `callback` and writes checkpoints. Draws of the module and statistics of a batch are those of each part.

    Law: on a mesh the result is that of one process, up to rounding, if the loss is a mean over rows.
    Law: k accumulated batches of equal size equal one batch of all their rows, up to rounding, if the loss is a mean.
    Law: the result is the same for every `every` and `jit`, up to rounding.
    Law: a resumed run equals the uninterrupted one bit for bit.

    Raises:
        ValueError: the data, `steps` or another argument do not fit, or the folder has checkpoints, and `resume` is not
            given or they are of a run with other arguments.
        TypeError: the model, the data, its dtype, a column or another argument is of another kind.
        NonFiniteError: with on_nonfinite="raise", the loss or a gradient is not finite.
        ImpureError: the module draws, and `key` is not given.
        TransformError: the loss is not a real tensor of shape (), or cannot be compiled.
        CheckpointError: a checkpoint cannot be written or read.
        MeshError: the processes were given different data, parameters or numbers, or one has failed.

    >>> import torchpure as tp
    >>> result = fit(lambda p, x: ((p - x) ** 2).mean(), torch.ones(3), params=torch.tensor(0.0),
    ...              optimizer=tp.optim.sgd(0.25), steps=3)
    >>> result.params, result.history
    (tensor(0.8750), tensor([1.0000, 0.2500, 0.0625]))
    """
    every = None if every is None else checked_count("fit", "every", every)
    batch_size = None if batch_size is None else checked_count("fit", "batch_size", batch_size)
    accumulate = checked_count("fit", "accumulate", accumulate)
    check_policy("fit", on_nonfinite)
    over = data_parallel("fit", mesh, keyed=True)
    check_kinds(model, optimizer, params, loss)
    optimizer = accumulated(optimizer, accumulate)
    if key is not None:
        random.check_key(key, "fit")
    problem = make_problem(model, params, loss)
    objective = mixed_precision(problem.objective, problem.start, compute_dtype)
    k_order, k_draws = (key, None) if key is None or problem.state is None else random.split(key)
    reader = BatchReader(isinstance(model, nn.Module | Functional), float_dtype(problem.start))
    read, rows = _read(reader, data, columns, batch_size, k_order)
    steps = count_steps(steps, epochs, read, batch_size)
    source = BatchSource(read, reader, steps, rows, k_order, steps_per_window(checkpoint, every))
    if over is not None:
        _check_processes(over, read, rows, key, problem.start, steps, accumulate)
    opt_state = optimizer.init(problem.start) if opt_state is None else opt_state
    watcher = as_callback("fit", callback)
    extras = Extras(on_nonfinite, None if watcher is None else watcher.observer)
    get_batch = _batch_getter(read, k_draws, stateful=problem.state is not None)
    step = make_step(objective, optimizer, get_batch, extras.advance(optimizer), over)
    refuse = partial(refuse_nonfinite, "fit", all_params=problem.all_params) if on_nonfinite == "raise" else None
    carry = (problem.start, extras.start(opt_state, problem.start), problem.state)

    windows = partial(source.windows, step, jit=jit)

    def arguments() -> Arguments:
        dtype = None if compute_dtype is None else str(compute_dtype)
        given = {"on_nonfinite": on_nonfinite, "accumulate": accumulate, "compute_dtype": dtype}
        return _saved_arguments(read, batch_size, every, key, jit=jit) | given

    def callback_state() -> Any:
        return None if watcher is None else watcher.init(problem.all_params(problem.start))

    with started("fit", carry, checkpoint, resume, arguments, over, callback_state) as (opened, start):
        if start.step > steps:
            raise ValueError(f"fit: the saved run has made {start.step} steps already, wanted at most steps={steps}")
        progresses = run_windows(start, windows, jit=jit, store=opened, refuse=refuse)
        fitted = _run(problem, start, progresses, watcher, opened, over)
    if on_nonfinite == "raise":
        refuse_members("fit", fitted.divergence, fitted)
    return fitted


def _read(
    reader: BatchReader, data: Any, columns: Sequence[str] | None, batch_size: int | None, key: Key | None
) -> tuple[Data, int | None]:
    """Return the data, and how many rows of it a step takes: None for a dataset, which comes in batches already."""
    if is_dataset(data):
        batches = DatasetBatches(data, columns, reader.dtype, batch_size, key, for_module=reader.for_module)
        return reader.read(batches), None
    if columns is not None or is_table(data):
        data = read_table(data, columns, reader.dtype, for_module=reader.for_module)
    return reader.read(data), batch_size


def _run(
    problem: Problem,
    start: Position,
    progresses: Generator[Progress, None, Progress | None],
    watcher: Callback[Any] | None,
    store: Store,
    over: DataParallel | None,
) -> Fit:
    """Run until the last Progress, or until the callback ends the run."""
    trained, held, state = start.carry
    opt_state, guard, _ = split_step_state(held)
    found = divergence_of(guard, trained)
    for progress in progresses:
        trained, opt_state, state, found = progress.params, progress.opt_state, progress.state, progress.divergence
        stop = False
        if watcher is not None and (over is None or over.is_first):
            reported = progress._replace(params=problem.all_params(trained))
            store.callback_state, stop = updated("fit", watcher, store.callback_state, reported)
        store.history.append(progress.losses)  # after the callback: if it raises, a resumed run repeats this report
        if watcher is not None and over is not None:
            stop = over.any_stops(int(stop))
        if stop:
            break
    progresses.close()
    losses = torch.cat(store.history) if store.history else torch.zeros(0)
    return Fit(problem.all_params(trained), state or {}, opt_state, losses, found, store.callback_state)


def _check_processes(
    over: DataParallel, data: Data, batch_size: int | None, key: Key | None, start: Params, steps: int, accumulate: int
) -> None:
    """Check that processes divide the batches, and were given the same."""
    if data.batches is None:
        over.check_rows("fit", len(data.tensors[0]), batch_size)
    numbers = {"steps": steps, "batch_size": batch_size, "accumulate": accumulate}
    over.check_equal(**numbers, key=key, params=start, data=data.tensors)


def _saved_arguments(
    data: Data, batch_size: int | None, every: int | None, key: Key | None, *, jit: bool
) -> dict[str, Any]:
    """Return what a resumed fit must share with the saved one, besides the model and the optimizer."""
    return {
        "data": None if data.batches is not None else hash_of(data.tensors, data.names),
        "batch_size": batch_size,
        "every": every,
        "key": None if key is None else key.tolist(),
        "jit": jit,
    }


def _batch_getter(data: Data, key: Key | None, *, stateful: bool) -> Callable[[Any, Any], tuple[Any, ...]]:
    """Return a function from the shared data and a step's own values to the arguments of the loss."""

    def get_batch(shared: Any, per_step: Any) -> tuple[Any, ...]:
        rows = per_step.get("rows")
        batch = per_step.get("batch", shared) if rows is None else tuple(tensor[rows] for tensor in shared)
        batch = data.arguments(batch)
        if not stateful:
            return batch
        return None if key is None else random.fold_in(key, per_step["number"]), *batch

    return get_batch
