"""Fit a model to data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure import tree
from torchpure._types import Key, Params, State
from torchpure.model import Functional, functional
from torchpure.optim import Optimizer

from ._batches import take
from ._loop import loop


class Fit(NamedTuple):
    """What a fit ends with."""

    params: Params
    state: State  # the buffers of the module; empty for a loss function
    opt_state: Any
    history: Tensor  # the loss at each step, before its update; shape (steps,)


def fit(
    model: nn.Module | Functional | Callable[..., Tensor],
    data: Any,
    *,
    optimizer: Optimizer[Any],
    steps: int,
    key: Key | None = None,
    params: Params = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    batch_size: int | None = None,
) -> Fit:
    """Minimise a loss over data, starting at the model's own values or at `params`.

    `model` is a module, whose `loss(output, target)` is the mean square by default, or a function
    `loss(params, *batch)`, which needs `params`. `data` is tensors (inputs …, target) with equal rows, or an iterable
    of such batches, repeated as often as needed. With `batch_size`, rows are drawn in an order that `key` gives.
    Parameters that did not require grad in the module stay as they are.

    Raises:
        ValueError: the data, `steps`, `batch_size` or `params` do not fit.
        ImpureError: the module draws, or changes a buffer.

    >>> import torchpure as tp
    >>> result = fit(lambda p, x: ((p - x) ** 2).mean(), torch.ones(3), params=torch.tensor(0.0),
    ...              optimizer=tp.optim.sgd(0.25), steps=3)
    >>> result.params, result.history
    (tensor(0.8750), tensor([1.0000, 0.2500, 0.0625]))
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"fit: steps must be a whole number, at least 0, got {steps!r}")
    batches = take(data, steps, batch_size, key)
    objective, start, finish, state = _problem(model, params, loss)
    opt_state = optimizer.init(start)
    history = []
    reached = start
    for progress in loop(objective, start, batches, optimizer, opt_state):
        reached, opt_state = progress.params, progress.opt_state
        history.append(progress.loss)
    losses = torch.stack(history) if history else torch.zeros(0)
    return Fit(finish(reached), state, opt_state, losses)


Problem = tuple[Callable[..., Tensor], Params, Callable[[Params], Params], State]


def _problem(model: Any, params: Params, loss: Callable[[Tensor, Tensor], Tensor] | None) -> Problem:
    """Return the objective, where it starts, how its parameters become the model's, and the model's buffers."""
    net = functional(model) if isinstance(model, nn.Module) else model
    if not isinstance(net, Functional):
        if params is None or loss is not None:
            raise ValueError("fit: a loss function needs params to start from, and no other loss")
        return net, params, lambda reached: reached, {}
    measure = loss or mean_square
    start = net.params if params is None else params
    frozen = {name: value for name, value in net.params.items() if name not in net.trainable}
    if not frozen:
        return lambda p, *batch: measure(net(p, *batch[:-1]), batch[-1]), start, lambda reached: reached, net.state
    if not (isinstance(start, dict) and start.keys() == net.params.keys()):
        raise ValueError("fit: a module with frozen parameters needs params as a dict by dotted name")
    frozen = {name: start[name] for name in frozen}

    def whole(moving: Params) -> Params:
        return {name: frozen[name] if name in frozen else moving[name] for name in net.params}

    moving = {name: start[name] for name in net.trainable}
    return lambda p, *batch: measure(net(whole(p), *batch[:-1]), batch[-1]), moving, whole, net.state


def mean_square(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean square of the difference, shape ().

    Raises:
        ValueError: the shapes differ: they would broadcast, and the mean would be over all pairs.
    """
    if output.shape != target.shape:
        raise ValueError(
            f"fit: the model returns {tree.describe(output)}, the target is {tree.describe(target)}: "
            "reshape one of them, or pass a loss of your own"
        )
    return torch.nn.functional.mse_loss(output, target)
