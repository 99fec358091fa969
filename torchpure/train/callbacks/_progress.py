"""What a run reports: `Progress` after some steps, and `Divergence`."""

from typing import Any, NamedTuple

from torch import Tensor

from torchpure._types import Params, State
from torchpure.tree.summaries import counted, shown, totals


class Divergence(NamedTuple):
    """The steps of a run whose loss or gradient was not finite. Each number has shape (), or one entry per member.

    >>> import torch
    >>> Divergence(torch.tensor(7), torch.tensor(2), torch.tensor(3), torch.tensor(1.0), {"a": (), "b": ()})
    Divergence: the gradient of `b` at step 7; 3 bad steps
    """

    step: Tensor  # the first bad step, from 1; 0: every step was finite; int64
    position: Tensor  # of the first bad leaf in `leaves`, from 1; 0: the loss; int64
    count: Tensor  # the number of bad steps; int64
    scale: Tensor  # the factor of the updates, which `reduce_rate` reduces; float64
    leaves: dict[str, tuple[()]]  # the paths of the parameters; a tree without leaves, which transforms let through

    @property
    def path(self) -> Any:
        """Return the path of the first bad leaf or "the loss", None if all was finite; of members, a nested list."""
        names = ["the loss", *self.leaves]
        return _named(names, self.step.tolist(), self.position.tolist())

    def __repr__(self) -> str:
        if self.step.ndim:
            return f"Divergence: {int((self.step > 0).sum())} of {counted(self.step.numel(), 'member')}"
        path = self.path
        if path is None:
            return "Divergence: none"
        scale = f"; updates × {shown(self.scale)}" if bool(self.scale != 1) else ""
        steps = counted(int(self.count), "bad step")
        return f"Divergence: {describe_bad(path)} at step {int(self.step):,}; {steps}{scale}"


def _named(names: list[str], step: Any, position: Any) -> Any:
    if isinstance(step, list):
        return [_named(names, *pair) for pair in zip(step, position, strict=True)]
    return names[position] if step else None


def describe_bad(path: str) -> str:
    """Describe what was not finite, by its path."""
    return path if path == "the loss" else f"the gradient of `{path}`"


class Progress(NamedTuple):
    """The state of a run after a step."""

    step: int  # the number of steps made, from 1
    loss: Tensor  # of this step's batch, before the update; shape ()
    params: Params  # after the update
    opt_state: Any
    state: State | None  # of the model, after the step; None if the loss takes no state
    losses: Tensor  # of all steps since the last Progress; shape (steps,)
    divergence: Divergence | None = None  # with on_nonfinite=
    observed: Any = None  # the state of the callback's observer

    def __repr__(self) -> str:
        return f"Progress: step {self.step:,}, loss {shown(self.loss)}, params: {totals(self.params)}"
