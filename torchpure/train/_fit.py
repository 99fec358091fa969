"""Fit a model to data."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure import random, tree
from torchpure._types import Key, Params, State
from torchpure.model import Functional, functional
from torchpure.optim import Optimizer
from torchpure.optim.core import check_optimizer
from torchpure.tree.summaries import counted, shown, summary, totals

from ._batches import BatchSource
from ._data import BatchReader, Data, float_dtype
from ._loop import Progress, check_every, run_windows
from ._resume import Arguments, Checkpoint, hash_of, open_store, steps_per_window
from ._steps import make_step
from ._windows import Window


class Fit(NamedTuple):
    """The result of a fit."""

    params: Params
    state: State  # the buffers of the module, after the last step; empty for a loss function
    opt_state: Any
    history: Tensor  # the loss at each step, before its update; shape (steps,)

    def __repr__(self) -> str:
        steps = self.history.shape[-1] if self.history.ndim else 0
        losses = f", loss {shown(self.history[..., 0])} to {shown(self.history[..., -1])}" if steps else ""
        first, *shapes = summary(self.params)
        state = [f"  state: {totals(self.state)}"] if tree.leaves(self.state) else []
        return "\n".join(
            [
                f"Fit: {counted(steps, 'step')}{losses}",
                f"  params: {first}",
                *(f"  {line}" for line in shapes),
                *state,
                f"  opt_state: {type(self.opt_state).__name__}, {totals(self.opt_state)}",
            ]
        )


def fit(
    model: nn.Module | Functional | Callable[..., Tensor],
    data: Tensor | Iterable[Any] | Mapping[str, Any],
    *,
    optimizer: Optimizer[Any],
    steps: int,
    key: Key | None = None,
    params: Params = None,
    opt_state: Any = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    batch_size: int | None = None,
    every: int | None = None,
    callback: Callable[[Progress], object] | None = None,
    jit: bool = True,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
) -> Fit:
    """Minimise a loss over data, starting at the model's own values or at `params`.

    `model` is a module, with a loss `loss(output, target)` that defaults to the mean square, or it is itself a loss
    function `loss(params, *batch)`, which needs `params`. `data` is tensors (inputs …, target) with the same number of
    rows, or an iterable of such batches, repeated as often as needed. NumPy arrays are converted. A loss function gets
    a dict of tensors as it is; for a module its values count in order. With `batch_size`, `key` gives the order of the
    rows; draws of the module, such as dropout, come from `key` too. Parameters without requires_grad do not change;
    the module's buffers are updated and returned. To continue a fit, pass its `params` and its `opt_state`.

    Runs of at least 200 steps are compiled: `every` steps form one program, by default up to 1,000. After each `every`
    steps `callback(progress)` is called; if it returns true, the run ends. With `jit=False` nothing is compiled.

    With `checkpoint`, a folder or a `Checkpointer`, the run is saved between windows of steps and at its end, also when
    it is interrupted. With `resume=True` it goes on from the newest checkpoint, if there is one; `steps` may be larger.

    Law: the result is the same for every `every` and `jit`, up to rounding.
    Law: a resumed run equals the uninterrupted one bit for bit.

    Raises:
        ValueError: the data, `steps`, `batch_size`, `every`, `params` or `opt_state` do not fit, or the folder has
            checkpoints, and `resume` is not given or they are of a run with other arguments.
        TypeError: the model, the data, the optimizer, `params` or `loss` is of another kind.
        ImpureError: the module draws, and `key` is not given.
        TransformError: the loss is not a real tensor of shape (), or cannot be compiled.
        CheckpointError: a checkpoint cannot be written or read.

    >>> import torchpure as tp
    >>> result = fit(lambda p, x: ((p - x) ** 2).mean(), torch.ones(3), params=torch.tensor(0.0),
    ...              optimizer=tp.optim.sgd(0.25), steps=3)
    >>> result.params, result.history
    (tensor(0.8750), tensor([1.0000, 0.2500, 0.0625]))
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"fit: steps must be an integer, at least 0, got {steps!r}")
    if every is not None:
        check_every("fit", every)
    _check_kinds(model, optimizer, params, loss)
    problem = _make_problem(model, params, loss)
    k_order, k_draws = (key, None) if key is None or problem.state is None else random.split(key)
    reader = BatchReader(isinstance(model, nn.Module | Functional), float_dtype(problem.start))
    read = reader.read(data)
    source = BatchSource(read, reader, steps, batch_size, k_order, steps_per_window(checkpoint, every))
    opt_state = optimizer.init(problem.start) if opt_state is None else opt_state
    carry = (problem.start, opt_state, problem.state)
    step = make_step(problem.objective, optimizer, _batch_getter(read, k_draws, stateful=problem.state is not None))

    def windows(first: int) -> Iterator[Window]:
        return source.windows(step, jit=jit, first=first)

    def arguments() -> Arguments:
        return _saved_arguments(read, batch_size, every, key, jit=jit)

    with open_store("fit", checkpoint, resume, arguments) as store:
        start = store.start(carry)
        carry = start.carry
        if start.step > steps:
            raise ValueError(f"fit: the saved run has made {start.step} steps already, wanted at most steps={steps}")
        progresses = run_windows(start, windows, jit=jit, store=store)
        for progress in progresses:
            carry = (progress.params, progress.opt_state, progress.state)
            seen = progress._replace(params=problem.all_params(progress.params))
            stop = callback is not None and callback(seen)
            store.history.append(
                progress.losses
            )  # after the callback: if it raises, the run resumes before this report
            if stop:
                break
        progresses.close()
    trained, opt_state, state = carry
    losses = torch.cat(store.history) if store.history else torch.zeros(0)
    return Fit(problem.all_params(trained), state or {}, opt_state, losses)


def _saved_arguments(data: Data, batch_size: int | None, every: int | None, key: Key | None, *, jit: bool) -> Arguments:
    """Return what a resumed fit must share with the saved one, besides the model and the optimizer."""
    return {
        "data": None if data.batches is not None else hash_of(data.tensors),
        "batch_size": batch_size,
        "every": every,
        "key": None if key is None else key.tolist(),
        "jit": jit,
    }


def _check_kinds(model: Any, optimizer: Any, params: Params, loss: Any) -> None:
    """Check that no argument is of a kind that is passed by mistake.

    Raises:
        TypeError: one is.
    """
    if isinstance(model, type):
        raise TypeError(
            f"fit: wanted a module, got the class {model.__name__}: make a module, as in {model.__name__}(…)"
        )
    if not isinstance(model, Functional) and not callable(model):
        raise TypeError(f"fit: wanted a module, a Functional or a loss function, got {tree.describe(model)}")
    check_optimizer("fit", optimizer)
    if isinstance(params, nn.Module | Iterator):
        raise TypeError(
            f"fit: params must be a tree of tensors, got {type(params).__name__}: pass tp.functional(module).params"
        )
    if isinstance(loss, type) or not (loss is None or callable(loss)):
        raise TypeError(f"fit: loss must be a function loss(output, target), got {loss!r:.60}")


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


class _Problem(NamedTuple):
    objective: Callable[..., Any]  # the loss, in the form that `loop` takes
    start: Params
    all_params: Callable[[Params], Params]  # trained parameters -> all parameters of the model
    state: State | None  # None if the model has no buffers and draws nothing


def _make_problem(model: Any, params: Params, loss: Callable[[Tensor, Tensor], Tensor] | None) -> _Problem:
    net = functional(model) if isinstance(model, nn.Module) else model
    if not isinstance(net, Functional):
        if params is None or loss is not None:
            raise ValueError("fit: a loss function needs params to start from, and takes no loss=")
        return _Problem(net, params, lambda trained: trained, None)
    criterion = loss or mean_square
    start, all_params = _split_trainable(net, net.params if params is None else params)

    def pure_loss(params: Params, *batch: Tensor) -> Tensor:
        return criterion(net(all_params(params), *batch[:-1]), batch[-1])

    def stateful_loss(params: Params, state: State, key: Key | None, *batch: Tensor) -> tuple[Tensor, State]:
        output, state = net.apply(all_params(params), state, *batch[:-1], key=key)
        return criterion(output, batch[-1]), state

    if net.deterministic and not net.state:
        return _Problem(pure_loss, start, all_params, None)
    return _Problem(stateful_loss, start, all_params, net.state)


def _split_trainable(net: Functional, start: Params) -> tuple[Params, Callable[[Params], Params]]:
    """Return the trained parameters, and a function that adds the frozen ones to them."""
    frozen = [name for name in net.params if name not in net.trainable]
    if not frozen:
        return start, lambda trained: trained
    if not (isinstance(start, dict) and start.keys() == net.params.keys()):
        raise ValueError("fit: a module with frozen parameters needs params as a dict by dotted name")
    frozen_values = {name: None if name in net.trainable else start[name] for name in net.params}
    trainable = {name: start[name] for name in net.trainable}  # without None, so that an optimizer skips nothing
    return trainable, lambda trained: {
        name: trained[name] if frozen_values[name] is None else frozen_values[name] for name in net.params
    }


def mean_square(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean square of the difference, shape ().

    Raises:
        ValueError: the shapes differ; broadcasting would take the mean over all pairs.
    """
    if output.shape != target.shape:
        raise ValueError(
            f"fit: the model returns {tree.describe(output)}, the target is {tree.describe(target)}: "
            "reshape one of them, or pass another loss="
        )
    return torch.nn.functional.mse_loss(output, target)
