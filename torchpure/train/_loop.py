"""The training loop: short enough to copy when yours must differ."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from torchpure import transforms
from torchpure._types import Params
from torchpure.optim import Optimizer


class Progress(NamedTuple):
    """Where a run stands after a step."""

    step: int  # how many steps were made, from 1
    loss: Tensor  # of this step's batch, before the update; shape ()
    params: Params  # after the update
    opt_state: Any


def loop(
    loss: Callable[..., Tensor],
    params: Params,
    batches: Iterable[tuple[Any, ...]],
    optimizer: Optimizer[Any],
    opt_state: Any = None,
) -> Iterator[Progress]:
    """Make one step a batch along the gradient of `loss(params, *batch)`, and tell of each.

    Raises:
        TransformError: `loss` does not return a real tensor of shape ().

    >>> import torch, torchpure as tp
    >>> steps = loop(lambda p, x: (p - x) ** 2, torch.tensor(0.0), [(torch.tensor(1.0),)] * 3, tp.optim.sgd(0.25))
    >>> [round(progress.params.item(), 3) for progress in steps]
    [0.5, 0.75, 0.875]
    """
    gradient = transforms.value_and_grad(loss)
    opt_state = optimizer.init(params) if opt_state is None else opt_state
    for number, batch in enumerate(batches, start=1):
        value, grads = gradient(params, *batch)
        params, opt_state = optimizer.step(grads, opt_state, params)
        yield Progress(number, value, params, opt_state)
