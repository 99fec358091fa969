"""Train a network on points, and report why the training ended."""

import itertools
import math
import signal
import time
from array import array
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import model, optim, train
from torchpure._types import Key, Params

from ._config import FitConfig
from ._network import Network
from ._points import Data, Sample

DIVERGED, INTERRUPTED, TERMINATED = 1, 130, 143
STATUS = {0: "done", DIVERGED: "diverged", INTERRUPTED: "interrupted", TERMINATED: "terminated"}

Report = Callable[[int, float], None]  # step, loss


class Fit(NamedTuple):
    """The result of a training; losses are mean squared errors in the units of the target."""

    code: int  # the exit code of the program
    steps: int  # the number of updates of the parameters
    losses: "array[float]"  # at each step, before its update
    train_loss: float
    test_loss: float
    seconds: float


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
) -> Fit:
    """Train until all steps are done, a signal comes or the loss is not finite; put the result in `network`.

    With a checkpointer the training goes on from its newest checkpoint; `losses` are then those of the steps before.
    """
    start = time.perf_counter()
    losses = array("d") if losses is None else losses
    code, newest = _train(network, data, config, key, report, stop, checkpointer, losses)
    seconds = time.perf_counter() - start
    network.core.load_state_dict(newest.params)
    return Fit(
        code,
        newest.steps,
        losses,
        _mean_squared_error(network, data.train),
        _mean_squared_error(network, data.test),
        seconds,
    )


def _train(
    network: Network,
    data: Data,
    config: FitConfig,
    key: Key,
    report: Report,
    stop: Callable[[], int],
    checkpointer: train.Checkpointer | None,
    losses: "array[float]",
) -> tuple[int, _Kept]:
    net = model.functional(network.core)
    x, y = network.encode(data.train.x), network.encode_target(data.train.y)
    unit = float(network.target_scale) ** 2  # the unit of a squared error

    def loss(params: Params, previous: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        return (net(params, x).squeeze(-1) - y).square().mean(), params

    # The loss of parameters is known in the next step. So the loop carries the parameters before, whose loss is finite.
    params, _ = net.init(key)
    batches = itertools.repeat((x, y), config.steps)
    position = _position(checkpointer) or train.Progress(0, torch.zeros(()), params, None, params, torch.zeros(0))
    saving = {"checkpoint": checkpointer, "resume": checkpointer is not None}
    progresses = train.loop(loss, params, batches, optimizer(config), state=params, **saving)
    for progress in progresses:
        value = float(progress.loss) * unit
        if not math.isfinite(value):
            _abandon(progresses)
            return DIVERGED, _last_finite(position)
        losses.append(value)
        position = progress
        report(progress.step, value)
        if stop() and progress.step < config.steps:
            code = INTERRUPTED if stop() == signal.SIGINT else TERMINATED
            break
    else:
        code = 0
    with torch.no_grad():
        finite = bool(loss(position.params, params, x, y)[0].isfinite())
    return (code, _Kept(position.step, position.params)) if finite else (DIVERGED, _last_finite(position))


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


@torch.no_grad()
def _mean_squared_error(network: Network, sample: Sample) -> float:
    return float((network(sample.x) - sample.y).square().mean())
