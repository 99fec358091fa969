"""Train a network on points, and report why the training ended."""

import math
import signal
import time
from array import array
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from torchpure import model, optim, train
from torchpure._types import Key, Params

from ._batches import batches, order_key, steps_per_epoch
from ._config import FitConfig
from ._losses import loss_name, measure, measure_loss, standard_loss, unit
from ._network import Network
from ._points import Data

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

DIVERGED, INTERRUPTED, TERMINATED = 1, 130, 143
STATUS = {0: "done", DIVERGED: "diverged", INTERRUPTED: "interrupted", TERMINATED: "terminated"}

Report = Callable[[int, float, float | None], None]  # step, loss, and the validation loss at the end of a period


class Fit(NamedTuple):
    """The result of a training; losses are in the units of the target."""

    code: int  # the exit code of the program
    steps: int  # the number of updates of the parameters
    losses: "array[float]"  # at each step, before its update
    train_loss: float
    test_loss: float
    seconds: float
    measured: Mapping[str, Any]  # on the test points: r2 and relative_error, or accuracy and confusion


class _Kept(NamedTuple):
    """Parameters after a number of steps."""

    steps: int
    params: Params


def fit(
    network: Network,
    data: Data,
    config: FitConfig,
    key: Key,
    report: Report,
    stop: Callable[[], int],
    checkpointer: train.Checkpointer | None = None,
    losses: "array[float] | None" = None,
    mesh: "DeviceMesh | None" = None,
) -> Fit:
    """Train until all steps are done, a signal comes or the loss is not finite; put the result in `network`.

    With a checkpointer the training goes on from its newest checkpoint; `losses` are then those of the steps before.
    """
    start = time.perf_counter()
    losses = array("d") if losses is None else losses
    code, newest = _train(network, data, config, key, report, stop, checkpointer, losses, mesh)
    seconds = time.perf_counter() - start
    network.core.load_state_dict(newest.params)
    name = loss_name(config, data.preprocessing)
    train_loss = measure_loss(network, data.train, name)
    measured = measure(network, data.test, name)
    test_loss = measured.pop("loss")
    return Fit(code, newest.steps, losses, train_loss, test_loss, seconds, measured)


def _train(
    network: Network,
    data: Data,
    config: FitConfig,
    key: Key,
    report: Report,
    stop: Callable[[], int],
    checkpointer: train.Checkpointer | None,
    losses: "array[float]",
    mesh: "DeviceMesh | None" = None,
) -> tuple[int, _Kept]:
    net = model.functional(network.core)
    x, y = network.encode(data.train.x), network.encode_target(data.train.y)
    name = loss_name(config, data.preprocessing)
    of_output, scale = standard_loss(name), unit(name, network)

    def loss(params: Params, previous: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        return of_output(net(params, x), y), params

    # The loss of parameters is known in the next step. So the loop carries the parameters before, whose loss is finite.
    params, _ = net.init(key)
    validation = _validation(network, data, config, lambda params, x, y: loss(params, params, x, y)[0] * scale)
    position = _position(checkpointer) or train.Progress(0, torch.zeros(()), params, None, params, torch.zeros(0))
    saving = {"checkpoint": checkpointer, "resume": checkpointer is not None}
    batches = _batches(network, data, config, key, x, y)
    progresses = train.loop(loss, params, batches, optimizer(config), state=params, mesh=mesh, **saving)
    for progress in progresses:
        value = float(progress.loss) * scale
        if not math.isfinite(value):
            _abandon(progresses)
            return DIVERGED, _last_finite(position)
        losses.append(value)
        position = progress
        report(progress.step, value, validation(progress.step, progress.params))
        if stop() and progress.step < config.steps:
            code = INTERRUPTED if stop() == signal.SIGINT else TERMINATED
            break
    else:
        code = 0
    with torch.no_grad():
        finite = bool(loss(position.params, params, x[: config.batch_size], y[: config.batch_size])[0].isfinite())
    return (code, _Kept(position.step, position.params)) if finite else (DIVERGED, _last_finite(position))


def _validation(
    network: Network, data: Data, config: FitConfig, loss: Callable[[Params, Tensor, Tensor], Tensor]
) -> Callable[[int, Params], float | None]:
    """Return a function of a step and its parameters: the validation loss at the end of each period, else None."""
    sample, period = data.validation, validation_period(config, data.train_points)
    if sample is None:
        return lambda step, params: None
    x, y = network.encode(sample.x), network.encode_target(sample.y)

    @torch.no_grad()
    def validate(step: int, params: Params) -> float | None:
        return float(loss(params, x, y)) if step % period == 0 or step == config.steps else None

    return validate


def _batches(
    network: Network, data: Data, config: FitConfig, key: Key, x: Tensor, y: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield encoded inputs and targets for all steps: from `x` and `y`, or from the blocks of a large file."""
    if data.stream is None or config.batch_size is None:
        yield from batches(x, y, config.steps, config.batch_size, key)
        return
    for x, y in data.stream.batches(order_key(key), config.steps, config.batch_size):
        yield network.encode(x), network.encode_target(y)


class _DivergedError(Exception):
    """The newest step of a training is not worth saving."""


def _abandon(progresses: Generator[train.Progress]) -> None:
    """End a loop so that it saves the step before the newest one."""
    with suppress(_DivergedError):
        progresses.throw(_DivergedError)


def _position(checkpointer: train.Checkpointer | None) -> train.Progress | None:
    """Return where a saved training stands, without its optimizer; None if nothing is saved."""
    step = None if checkpointer is None else checkpointer.latest()
    if checkpointer is None or step is None:
        return None
    saved = checkpointer.restore(step)
    return train.Progress(step, torch.zeros(()), saved["params"], None, saved["state"], torch.zeros(0))


def _last_finite(position: train.Progress) -> _Kept:
    return _Kept(max(position.step - 1, 0), position.state)


def optimizer(config: FitConfig) -> optim.Optimizer:
    """Make the optimizer that a configuration names."""
    return make_optimizer(config, config.learning_rate, config.weight_decay or None)


def make_optimizer(
    config: FitConfig, learning_rate: float | Tensor, weight_decay: float | Tensor | None
) -> optim.Optimizer:
    """Make the optimizer that a configuration names, with other numbers, which may be tensors."""
    constant = config.schedule == "constant"
    rate = learning_rate if constant else optim.cosine_decay_schedule(learning_rate, config.steps)
    if config.optimizer == "adamw":
        return optim.adamw(rate, weight_decay=0.0 if weight_decay is None else weight_decay)
    chosen = optim.adam(rate) if config.optimizer == "adam" else optim.sgd(rate, momentum=0.9)
    # added before the optimizer, weight decay is a penalty, as in torch.optim.Adam and SGD
    return chosen if weight_decay is None else optim.chain(optim.add_decayed_weights(weight_decay), chosen)


def validation_period(config: FitConfig, rows: int) -> int:
    """Return after how many steps the validation loss is computed: each epoch, or each hundredth of the run."""
    return steps_per_epoch(rows, config.batch_size) if config.batch_size else max(1, config.steps // 100)
