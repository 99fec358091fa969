"""Fit a model to data."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure import random, tree
from torchpure._types import Key, Params, State
from torchpure.model import Functional, functional
from torchpure.optim import Optimizer
from torchpure.tree._summary import counted, shown, summary, totals

from ._batches import Source
from ._loop import Progress, check_every, told
from ._steps import step_of


class Fit(NamedTuple):
    """What a fit ends with."""

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
    data: Tensor | Iterable[Any],
    *,
    optimizer: Optimizer[Any],
    steps: int,
    key: Key | None = None,
    params: Params = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    batch_size: int | None = None,
    every: int | None = None,
    callback: Callable[[Progress], object] | None = None,
    jit: bool = True,
) -> Fit:
    """Minimise a loss over data, starting at the model's own values or at `params`.

    `model` is a module, whose `loss(output, target)` is the mean square by default, or a function
    `loss(params, *batch)`, which needs `params`. `data` is tensors (inputs …, target) with equal rows, or an iterable
    of such batches, repeated as often as needed. With `batch_size`, rows are drawn in an order that `key` gives; draws
    of the module, such as dropout, are answered from it too. Parameters that did not require grad in the module stay
    as they are; its buffers are updated as it does, and returned.

    Runs of at least 200 steps are compiled, `every` of them as one program, by default up to 1,000. After each so many
    steps `callback(progress)` is called, and ends the run by returning true. With `jit=False` nothing is compiled.

    Law: the result is the same for every `every` and `jit`, up to rounding.

    Raises:
        ValueError: the data, `steps`, `batch_size`, `every` or `params` do not fit.
        ImpureError: the module draws, and there is no key.
        TransformError: the loss is not a real tensor of shape (), or cannot be compiled.

    >>> import torchpure as tp
    >>> result = fit(lambda p, x: ((p - x) ** 2).mean(), torch.ones(3), params=torch.tensor(0.0),
    ...              optimizer=tp.optim.sgd(0.25), steps=3)
    >>> result.params, result.history
    (tensor(0.8750), tensor([1.0000, 0.2500, 0.0625]))
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"fit: steps must be a whole number, at least 0, got {steps!r}")
    if every is not None:
        check_every("fit", every)
    problem = _problem(model, params, loss)
    k_order, k_draws = (key, None) if key is None or problem.state is None else random.split(key)
    source = Source(data, steps, batch_size, k_order, every)
    opt_state, reached, state, history = optimizer.init(problem.start), problem.start, problem.state, []
    step = step_of(problem.objective, optimizer, _join(k_draws, stateful=problem.state is not None))
    for progress in told((reached, opt_state, state), source.windows(step, jit=jit), jit=jit):
        _, _, reached, opt_state, state, losses = progress
        history.append(losses)
        if callback is not None and callback(progress._replace(params=problem.whole(reached))):
            break
    losses = torch.cat(history) if history else torch.zeros(0)
    return Fit(problem.whole(reached), state or {}, opt_state, losses)


def _join(key: Key | None, *, stateful: bool) -> Callable[[Any, Any], tuple[Any, ...]]:
    """Return what makes the arguments of the loss: of the data, which all steps share, and of what is a step's own."""

    def join(shared: Any, own: Any) -> tuple[Any, ...]:
        rows = own.get("rows")
        batch = own.get("batch", shared) if rows is None else tuple(part[rows] for part in shared)
        if not stateful:
            return batch
        return None if key is None else random.fold_in(key, own["number"]), *batch

    return join


class _Problem(NamedTuple):
    objective: Callable[..., Any]  # as `loop` takes it
    start: Params
    whole: Callable[[Params], Params]  # the model's parameters of those that move
    state: State | None  # None when the model has no buffers and draws nothing


def _problem(model: Any, params: Params, loss: Callable[[Tensor, Tensor], Tensor] | None) -> _Problem:
    net = functional(model) if isinstance(model, nn.Module) else model
    if not isinstance(net, Functional):
        if params is None or loss is not None:
            raise ValueError("fit: a loss function needs params to start from, and no other loss")
        return _Problem(net, params, lambda reached: reached, None)
    measure = loss or mean_square
    start, whole = _moving(net, net.params if params is None else params)

    def plain(params: Params, *batch: Tensor) -> Tensor:
        return measure(net(whole(params), *batch[:-1]), batch[-1])

    def stateful(params: Params, state: State, key: Key | None, *batch: Tensor) -> tuple[Tensor, State]:
        output, state = net.apply(whole(params), state, *batch[:-1], key=key)
        return measure(output, batch[-1]), state

    if net.deterministic and not net.state:
        return _Problem(plain, start, whole, None)
    return _Problem(stateful, start, whole, net.state)


def _moving(net: Functional, start: Params) -> tuple[Params, Callable[[Params], Params]]:
    """Return the parameters that are trained, and how to put the frozen ones back."""
    frozen = [name for name in net.params if name not in net.trainable]
    if not frozen:
        return start, lambda reached: reached
    if not (isinstance(start, dict) and start.keys() == net.params.keys()):
        raise ValueError("fit: a module with frozen parameters needs params as a dict by dotted name")
    rest = {name: None if name in net.trainable else start[name] for name in net.params}
    moving = {name: start[name] for name in net.trainable}  # without holes: an optimizer has nothing to pass over
    return moving, lambda reached: {name: reached[name] if rest[name] is None else rest[name] for name in net.params}


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
