"""Train the members of a group side by side: one step of one member, mapped over members."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Params
from torchpure.jit import jit
from torchpure.optim import Optimizer
from torchpure.transforms import scan, value_and_grad, vmap
from torchpure.transforms.engine import members_apart


class Task(NamedTuple):
    """What all members of a group share."""

    loss: Callable[[Params, Tensor, Tensor], Tensor]  # of (params, x, y), shape ()
    optimizer: Callable[[Tensor, Tensor], Optimizer]  # of (learning rate, weight decay)
    steps: int
    patience: int | None  # steps without a smaller loss after which a member stops


class Inputs(NamedTuple):
    """What members differ in, stacked over members."""

    x: Tensor  # (members or 1, rows, inputs)
    y: Tensor  # (members or 1, rows)
    unit: Tensor  # float64: of a squared error, in the units of the target
    learning_rate: Tensor  # float64
    weight_decay: Tensor  # float64


class State(NamedTuple):
    """Where members stand, stacked over members. A member that does not run is frozen."""

    params: Params
    previous: Params  # before the last update; their loss is finite
    opt_state: Any
    steps: Tensor  # int64: updates made
    running: Tensor  # bool
    finite: Tensor  # bool: no loss was infinite or NaN
    best: Tensor  # float64: the least loss
    waited: Tensor  # int64: steps since then


# (state, inputs, step numbers, rows of each step's batch or the batches or None for all) -> (state, losses)
Window = Callable[[State, Inputs, Tensor, Any], tuple[State, Tensor]]


def start_state(task: Task, params: Params, inputs: Inputs) -> State:
    """Return the state before the first step; `params` are stacked over members."""

    def init(params: Params, learning_rate: Tensor, weight_decay: Tensor) -> Any:
        return task.optimizer(learning_rate, weight_decay).init(params)

    count = len(inputs.learning_rate)
    true = torch.ones(count, dtype=torch.bool, device=inputs.x.device)
    zero = true.long() * 0
    opt_state = vmap(init)(params, inputs.learning_rate, inputs.weight_decay)
    return State(params, params, opt_state, zero, true, true, zero.double() + torch.inf, zero)


class Programs:
    """The programs of a task; groups of the same task share them, so that each is compiled once."""

    def __init__(self, task: Task, recipe: Any = None) -> None:
        """Start without programs; with the recipe another process makes them."""
        self.task, self.recipe = task, recipe
        self._made: dict[tuple[bool, bool, bool, bool], Window] = {}

    def get(self, *, shared: bool, batches: bool, compiled: bool, streamed: bool = False) -> Window:
        """Return the program; see `make_window`."""
        key = (shared, batches, compiled, streamed)
        if key not in self._made:
            made = make_window(self.task, shared=shared, batches=batches, compiled=compiled, streamed=streamed)
            self._made[key] = made
        return self._made[key]


def make_window(task: Task, *, shared: bool, batches: bool, compiled: bool, streamed: bool = False) -> Window:
    """Return a function that runs consecutive steps: (state, inputs, step numbers, rows) to (state, losses).

    With `batches`, the rows of each step's batch are (members, steps, batch); with `streamed` too, they are the batches
    themselves, features and targets, the same for all members. With `shared`, all members have the same points. The
    losses, (members, steps), are those before each update; NaN where a member was frozen or is not finite. A step whose
    number is at least that of the task's steps does nothing. Other members have no influence on the bits of one.
    """

    def window(state: State, points: Sequence[Tensor], others: Sequence[Tensor], numbers: Tensor, rows: Any) -> Any:
        given = (numbers, *rows) if streamed else (numbers, rows) if batches else (numbers,)
        return scan(_make_step(task, Inputs(*points, *others)), state, given)

    dim = None if shared else 0
    mapped = vmap(window, in_dims=(0, (dim, dim), (0, 0, 0), None, 0 if batches and not streamed else None))

    def run(state: State, inputs: Inputs, numbers: Tensor, rows: Any) -> tuple[State, Tensor]:
        return mapped(state, (*inputs[:2],), (*inputs[2:],), numbers, rows)

    # not jit(vmap(...)), which measures several chunk sizes: their results differ in the last bits
    return jit(run) if compiled else members_apart()(run)


def _make_step(task: Task, inputs: Inputs) -> Callable[[State, Sequence[Tensor]], tuple[State, Tensor]]:
    optimizer = task.optimizer(inputs.learning_rate, inputs.weight_decay)
    gradient = value_and_grad(task.loss)

    def step(state: State, given: Sequence[Tensor]) -> tuple[State, Tensor]:
        number, *rows = given
        x, y = _batch(inputs, rows)
        value, grads = gradient(state.params, x, y)
        loss = value.double() * inputs.unit
        wanted, finite = state.running & (number < task.steps), loss.isfinite()
        advances, diverges = wanted & finite, wanted & ~finite
        updated = optimizer.step(grads, state.opt_state, state.params)
        params, opt_state = _select(advances, updated, (state.params, state.opt_state))
        better = loss < state.best
        waited = torch.where(better, torch.zeros_like(state.waited), state.waited + 1)
        patient = waited < task.patience if task.patience else torch.ones_like(finite)
        after = State(
            _select(diverges, state.previous, params),
            _select(advances, state.params, state.previous),
            opt_state,
            torch.where(diverges, (state.steps - 1).clamp(min=0), state.steps + advances),
            torch.where(wanted, finite & patient, state.running),
            state.finite & ~diverges,
            torch.where(advances & better, loss, state.best),
            torch.where(advances, waited, state.waited),
        )
        return after, torch.where(advances, loss, torch.full_like(loss, torch.nan))

    return step


def _batch(inputs: Inputs, given: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the points of a step: all, those of some rows, or a batch of features and targets itself."""
    match given:
        case [x, y]:
            return x, y
        case [rows]:
            return inputs.x[rows], inputs.y[rows]
    return inputs.x, inputs.y


def _select(condition: Tensor, chosen: Any, other: Any) -> Any:
    return tree.map(lambda a, b: torch.where(condition, a, b), chosen, other)
