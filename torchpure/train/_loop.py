"""The training loop: steps along the gradient of a loss, told of as they are made."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Params, State
from torchpure.optim import Optimizer
from torchpure.tree._summary import shown, totals

from ._steps import Runner, step_of
from ._windows import Window, listed


class Progress(NamedTuple):
    """Where a run stands after a step."""

    step: int  # how many steps were made, from 1
    loss: Tensor  # of this step's batch, before the update; shape ()
    params: Params  # after the update
    opt_state: Any
    state: State | None  # of the model, after the step; None where the loss has none
    losses: Tensor  # of all steps since the last one that was told of; shape (steps,)

    def __repr__(self) -> str:
        return f"Progress: step {self.step:,}, loss {shown(self.loss)}, params: {totals(self.params)}"


def loop(
    loss: Callable[..., Tensor],
    params: Params,
    batches: Iterable[tuple[Any, ...]],
    optimizer: Optimizer[Any],
    opt_state: Any = None,
    state: State | None = None,
    *,
    every: int = 1,
    jit: bool = True,
) -> Iterator[Progress]:
    """Make one step a batch along the gradient of `loss(params, *batch)`, and tell of every so many, and of the last.

    With a state, such as a model's buffers, the loss is `loss(params, state, *batch) -> (value, new state)`.

    Steps between two that are told of run as one compiled loop, where their batches have equal shapes. So `every`
    batches are read before they run; they are copied together, 64 MB at most, unless they are one tuple that comes
    again and again. Runs of fewer than 200 steps are over before they could be compiled, and are not; with `every=1`,
    which compiles a single step, the first 1,000 are not. With `jit=False` nothing is compiled.

    Law: the steps are the same for every `every` and `jit`, up to rounding.

    Raises:
        ValueError: `every` is no whole number of at least 1.
        TransformError: `loss` does not return a real tensor of shape (), or cannot be compiled.

    >>> import torch, torchpure as tp
    >>> steps = loop(lambda p, x: (p - x) ** 2, torch.tensor(0.0), [(torch.tensor(1.0),)] * 3, tp.optim.sgd(0.25))
    >>> [round(progress.params.item(), 3) for progress in steps]
    [0.5, 0.75, 0.875]
    """
    check_every("loop", every)
    step = step_of(loss, optimizer, lambda shared, own: own.get("batch", shared))
    carry = (params, optimizer.init(params) if opt_state is None else opt_state, state)
    yield from told(carry, listed(step, batches, every if jit else 1, every), jit=jit)


def told(carry: Any, windows: Iterable[Window], *, jit: bool) -> Iterator[Progress]:
    """Run windows of steps, and tell of them where they say so, and of the last.

    Raises:
        TransformError: the loss is none, or cannot be compiled.
    """
    runner, number, parts = Runner(jit), 0, []
    for window in windows:
        carry, losses = runner.run(carry, window)
        parts.append(losses)
        number += window.steps
        if window.told:
            yield _progress(number, carry, parts)
            parts = []
    if parts:
        yield _progress(number, carry, parts)


def _progress(number: int, carry: Any, parts: list[Tensor]) -> Progress:
    losses = torch.cat(parts) if len(parts) > 1 else parts[0]
    params, opt_state, state = carry
    return Progress(number, losses[-1], params, opt_state, state, losses)


def check_every(who: str, every: Any) -> None:
    """Check that a number of steps is one.

    Raises:
        ValueError: it is not.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"{who}: every must be a whole number, at least 1, got {every!r}")
