"""Trainings that other processes import: they must stand in a module."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

import torchpure as tp

X = torch.linspace(-1, 1, 12)[:, None]
NET = tp.functional(nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)))


def fitted(key, learning_rate, steps=3):
    params, _ = NET.init(key)
    result = tp.fit(NET, (X, torch.sin(3 * X)), optimizer=tp.optim.adam(learning_rate), steps=steps, params=params)
    return {
        "loss": result.history[-1],
        "params": result.params,
        "empty": torch.zeros(0),
        "half": learning_rate.bfloat16(),
    }


def number(key, learning_rate, folder=None):
    """Leave a file for each run, so that runs are counted."""
    if folder is not None:
        Path(folder, f"{time.monotonic_ns()}-{os.getpid()}").touch()
    return learning_rate * 2 + tp.random.uniform(key, ())


def fatal(key, learning_rate, folder):
    """Kill the worker that runs this first."""
    try:
        Path(folder, "killed").touch(exist_ok=False)
    except FileExistsError:
        return number(key, learning_rate, folder)
    return os.kill(os.getpid(), signal.SIGKILL)


def fatal_beside(number, folder):
    """Leave a file for each run. The first run of task 2 kills its worker while the first run of task 1 sleeps."""
    begun = Path(folder, f"{number}-{time.monotonic_ns()}")
    first = not [*Path(folder).glob(f"{number}-*")]
    begun.touch()
    while number == 2 and first and not [*Path(folder).glob("1-*")]:
        time.sleep(0.01)
    if number == 2 and first:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 1 and first:
        time.sleep(60)  # the pool ends it
    return number


def always_fatal(key, learning_rate):
    os.kill(os.getpid(), signal.SIGKILL)


class OwnError(Exception):
    """Cannot be made from its message alone."""

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


def failing(key, learning_rate, kind="value"):
    if kind == "own":
        raise OwnError("own", 3)
    tp.check(learning_rate != 0.5, "half")
    if kind == "value":
        raise ValueError("wrong")
    return learning_rate


def divergent(key, learning_rate):
    return tp.fit(
        NET, (X, X), optimizer=tp.optim.sgd(learning_rate), steps=3, params=NET.init(key)[0], on_nonfinite="raise"
    ).params
