"""Train a network on points, and report why the training ended."""

import math
import signal
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import model, optim, train
from torchpure._types import Key, Params

from ._batches import batches, order_key, steps_per_epoch
from ._config import FitConfig
from ._losses import loss_name, measure, measure_loss, standard_loss, unit
from ._network import Network
from ._points import Data

DIVERGED, INTERRUPTED, TERMINATED = 1, 130, 143
STATUS = {0: "done", DIVERGED: "diverged", INTERRUPTED: "interrupted", TERMINATED: "terminated"}

Report = Callable[[int, float], None]  # step, loss


class Fit(NamedTuple):
    """The result of a training; losses are in the units of the target."""

    code: int  # the exit code of the program
    steps: int  # the number of updates of the parameters
    losses: "array[float]"  # at each step, before its update
    train_loss: float
    test_loss: float
    seconds: float
    measured: Mapping[str, Any]  # on the test points: r2 and relative_error, or accuracy and confusion
    validation_losses: Mapping[int, float]  # by the number of steps made


class _Checkpoint(NamedTuple):
    steps: int
    params: Params


def fit(network: Network, data: Data, config: FitConfig, key: Key, report: Report, stop: Callable[[], int]) -> Fit:
    """Train until all steps are done, a signal comes or the loss is not finite; put the result in `network`."""
    start = time.perf_counter()
    validation_losses: dict[int, float] = {}
    code, newest, losses = _train(network, data, config, key, report, stop, validation_losses)
    seconds = time.perf_counter() - start
    network.core.load_state_dict(newest.params)
    name = loss_name(config, data.preprocessing)
    train_loss = measure_loss(network, data.train, name)
    measured = measure(network, data.test, name)
    test_loss = measured.pop("loss")
    return Fit(code, newest.steps, losses, train_loss, test_loss, seconds, measured, validation_losses)


def _train(
    network: Network,
    data: Data,
    config: FitConfig,
    key: Key,
    report: Report,
    stop: Callable[[], int],
    validation_losses: dict[int, float],
) -> tuple[int, _Checkpoint, "array[float]"]:
    net = model.functional(network.core)
    x, y = network.encode(data.train.x), network.encode_target(data.train.y)
    name = loss_name(config, data.preprocessing)
    of_output, scale = standard_loss(name), unit(name, network)

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return of_output(net(params, x), y)

    def validate(newest: _Checkpoint) -> None:
        if data.validation is not None and (newest.steps % period == 0 or newest.steps == config.steps):
            x, y = network.encode(data.validation.x), network.encode_target(data.validation.y)
            with torch.no_grad():
                validation_losses[newest.steps] = scale * float(loss(newest.params, x, y))

    period = validation_period(config, data.train_points)
    params, _ = net.init(key)
    # The loss of parameters is computed in the next step. `last_finite` has a loss that is known to be finite.
    last_finite = newest = _Checkpoint(0, params)
    losses = array("d")
    for progress in train.loop(loss, params, _batches(network, data, config, key), optimizer(config)):
        value = float(progress.loss) * scale
        if not math.isfinite(value):
            return DIVERGED, last_finite, losses
        losses.append(value)
        last_finite, newest = newest, _Checkpoint(progress.step, progress.params)
        validate(newest)
        report(progress.step, value)
        if stop() and progress.step < config.steps:
            code = INTERRUPTED if stop() == signal.SIGINT else TERMINATED
            break
    else:
        code = 0
    with torch.no_grad():
        rows = slice(config.batch_size)
        finite = bool(loss(newest.params, x[rows], y[rows]).isfinite())
    return (code, newest, losses) if finite else (DIVERGED, last_finite, losses)


def _batches(
    network: Network, data: Data, config: FitConfig, key: Key, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield encoded inputs and targets for the steps from `start`."""
    if data.stream is None or config.batch_size is None:
        x, y = network.encode(data.train.x), network.encode_target(data.train.y)
        yield from batches(x, y, config.steps, config.batch_size, key, start)
        return
    for x, y in data.stream.batches(order_key(key), config.steps, config.batch_size, start):
        yield network.encode(x), network.encode_target(y)


def optimizer(config: FitConfig) -> optim.Optimizer:
    """Make the optimizer that a configuration names."""
    start, constant = config.learning_rate, config.schedule == "constant"
    learning_rate = start if constant else optim.cosine_decay_schedule(start, config.steps)
    if config.optimizer == "adamw":
        return optim.adamw(learning_rate, weight_decay=config.weight_decay)
    chosen = optim.adam(learning_rate) if config.optimizer == "adam" else optim.sgd(learning_rate, momentum=0.9)
    # added before the optimizer, weight decay is a penalty, as in torch.optim.Adam and SGD
    return optim.chain(optim.add_decayed_weights(config.weight_decay), chosen) if config.weight_decay else chosen


def validation_period(config: FitConfig, rows: int) -> int:
    """Return after how many steps the validation loss is computed: each epoch, or each hundredth of the run."""
    return steps_per_epoch(rows, config.batch_size) if config.batch_size else max(1, config.steps // 100)
