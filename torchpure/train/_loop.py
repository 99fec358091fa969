"""The training loop: short enough to copy when yours must differ."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from torchpure import transforms
from torchpure._types import Params, State
from torchpure.optim import Optimizer


class Progress(NamedTuple):
    """Where a run stands after a step."""

    step: int  # how many steps were made, from 1
    loss: Tensor  # of this step's batch, before the update; shape ()
    params: Params  # after the update
    opt_state: Any
    state: State | None = None  # of the model, after the step; None where the loss has none


def loop(
    loss: Callable[..., Tensor],
    params: Params,
    batches: Iterable[tuple[Any, ...]],
    optimizer: Optimizer[Any],
    opt_state: Any = None,
    state: State | None = None,
) -> Iterator[Progress]:
    """Make one step a batch along the gradient of `loss(params, *batch)`, and tell of each.

    With a state, such as a model's buffers, the loss is `loss(params, state, *batch) -> (value, new state)`.

    Raises:
        TransformError: `loss` does not return a real tensor of shape ().

    >>> import torch, torchpure as tp
    >>> steps = loop(lambda p, x: (p - x) ** 2, torch.tensor(0.0), [(torch.tensor(1.0),)] * 3, tp.optim.sgd(0.25))
    >>> [round(progress.params.item(), 3) for progress in steps]
    [0.5, 0.75, 0.875]
    """
    gradient = transforms.value_and_grad(loss, has_aux=state is not None)
    opt_state = optimizer.init(params) if opt_state is None else opt_state
    for number, batch in enumerate(batches, start=1):
        if state is None:
            value, grads = gradient(params, *batch)
        else:
            (value, state), grads = gradient(params, state, *batch)
        params, opt_state = optimizer.step(grads, opt_state, params)
        yield Progress(number, value, params, opt_state, state)
