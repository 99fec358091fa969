"""What a fit minimises: the loss of a module, of a Functional, or of a loss function, and its trained parameters."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure import tree
from torchpure._types import Key, Params, State
from torchpure.model import Functional, functional
from torchpure.optim.core import check_optimizer

from ._data import explained_dtypes


def check_kinds(model: Any, optimizer: Any, params: Params, loss: Any) -> None:
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


class Problem(NamedTuple):
    """What is minimised, and from where."""

    objective: Callable[..., Any]  # the loss, in the form that `loop` takes
    start: Params
    all_params: Callable[[Params], Params]  # trained parameters -> all parameters of the model
    state: State | None  # None if the model has no buffers and draws nothing


def make_problem(model: Any, params: Params, loss: Callable[[Tensor, Tensor], Tensor] | None) -> Problem:
    """Return the objective of a module or Functional with a loss, or of a loss function.

    Raises:
        ValueError: a loss function has no params or a loss=, a module has no parameters, or frozen parameters have no
            names.
    """
    net = functional(model) if isinstance(model, nn.Module) else model
    if isinstance(net, Functional) and not net.params:
        raise ValueError(
            f"fit: {net.name} has no parameters to train. torch does not see modules in a plain list or dict: put them "
            "into an nn.ModuleList or an nn.ModuleDict"
        )
    if not isinstance(net, Functional):
        if params is None or loss is not None:
            raise ValueError("fit: a loss function needs params to start from, and takes no loss=")
        return Problem(net, params, lambda trained: trained, None)
    criterion = loss or mean_square
    start, all_params = _split_trainable(net, net.params if params is None else params)

    def pure_loss(params: Params, *batch: Tensor) -> Tensor:
        with explained_dtypes(batch[:-1], params):
            output = net(all_params(params), *batch[:-1])
        return criterion(output, batch[-1])

    def stateful_loss(params: Params, state: State, key: Key | None, *batch: Tensor) -> tuple[Tensor, State]:
        with explained_dtypes(batch[:-1], params):
            output, state = net.apply(all_params(params), state, *batch[:-1], key=key)
        return criterion(output, batch[-1]), state

    if net.deterministic and not net.state:
        return Problem(pure_loss, start, all_params, None)
    return Problem(stateful_loss, start, all_params, net.state)


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
        TypeError: the output is no tensor, as for a recurrent layer.

    >>> mean_square(torch.ones(3), torch.zeros(3))
    tensor(1.)
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"fit: the model returns {tree.describe(output)}, the mean square takes one tensor: choose it in loss=, as "
            "in loss=lambda output, target: F.mse_loss(output[0], target)"
        )
    if output.shape != target.shape:
        raise ValueError(
            f"fit: the model returns {tree.describe(output)}, the target is {tree.describe(target)}: "
            "reshape one of them, or pass another loss="
        )
    return torch.nn.functional.mse_loss(output, target)
