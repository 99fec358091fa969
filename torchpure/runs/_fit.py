"""Train a network on points, and report why the training ended."""

import itertools
import math
import signal
import time
from array import array
from collections.abc import Callable
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


class _Checkpoint(NamedTuple):
    steps: int
    params: Params


def fit(network: Network, data: Data, config: FitConfig, key: Key, report: Report, stop: Callable[[], int]) -> Fit:
    """Train until all steps are done, a signal comes or the loss is not finite; put the result in `network`."""
    start = time.perf_counter()
    code, newest, losses = _train(network, data, config, key, report, stop)
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
    network: Network, data: Data, config: FitConfig, key: Key, report: Report, stop: Callable[[], int]
) -> tuple[int, _Checkpoint, "array[float]"]:
    net = model.functional(network.core)
    x, y = network.encode(data.train.x), network.encode_target(data.train.y)
    unit = float(network.target_scale) ** 2  # the unit of a squared error

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return (net(params, x).squeeze(-1) - y).square().mean()

    params, _ = net.init(key)
    # The loss of parameters is computed in the next step. `last_finite` has a loss that is known to be finite.
    last_finite = newest = _Checkpoint(0, params)
    losses = array("d")
    batches = itertools.repeat((x, y), config.steps)
    for progress in train.loop(loss, params, batches, optimizer(config)):
        value = float(progress.loss) * unit
        if not math.isfinite(value):
            return DIVERGED, last_finite, losses
        losses.append(value)
        last_finite, newest = newest, _Checkpoint(progress.step, progress.params)
        report(progress.step, value)
        if stop() and progress.step < config.steps:
            code = INTERRUPTED if stop() == signal.SIGINT else TERMINATED
            break
    else:
        code = 0
    with torch.no_grad():
        finite = bool(loss(newest.params, x, y).isfinite())
    return (code, newest, losses) if finite else (DIVERGED, last_finite, losses)


def optimizer(config: FitConfig) -> optim.Optimizer:
    """Make the optimizer that a configuration names."""
    start, constant = config.learning_rate, config.schedule == "constant"
    learning_rate = start if constant else optim.cosine_decay_schedule(start, config.steps)
    if config.optimizer == "adamw":
        return optim.adamw(learning_rate, weight_decay=config.weight_decay)
    chosen = optim.adam(learning_rate) if config.optimizer == "adam" else optim.sgd(learning_rate, momentum=0.9)
    # added before the optimizer, weight decay is a penalty, as in torch.optim.Adam and SGD
    return optim.chain(optim.add_decayed_weights(config.weight_decay), chosen) if config.weight_decay else chosen


@torch.no_grad()
def _mean_squared_error(network: Network, sample: Sample) -> float:
    return float((network(sample.x) - sample.y).square().mean())
