"""Steps of training: one after another, or many as one compiled program."""

from collections import Counter
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure.errors import TransformError
from torchpure.jit import jit
from torchpure.optim import Optimizer
from torchpure.transforms import scan, value_and_grad

from ._windows import Window

Carry = Any  # (params, state of the optimizer, state of the model or None)
Step = Callable[[Carry, Any, Any], tuple[Carry, Tensor]]  # (carry, shared, own) -> (carry, loss)

Join = Callable[[Any, dict[str, Any]], tuple[Any, ...]]  # (shared, own) -> the batch

# A program costs about a second, and saves 0.2 to 0.5 ms a step; both grow with the number of operations, so the number
# of steps from which on it pays, some thousands, is much the same for all networks. A program of many steps answers a
# wish (`every`, or a whole fit), and only very short runs do without; one of a single step has to earn its price.
FEW = 200
FEW_SINGLE = 1000
_OF_PROGRAMS = ("jit:", "scan:", "train:")  # how errors begin that only a program has
_WAY_OUT = "or pass jit=False, which runs each step uncompiled"


def step_of(loss: Callable[..., Any], optimizer: Optimizer[Any], join: Join) -> Step:
    """Return the step along the gradient of a loss; a rule that wants more is given the loss, too, as a function."""

    @wraps(loss, updated=())
    def step(carry: Carry, shared: Any, own: Any) -> tuple[Carry, Tensor]:
        params, opt_state, old = carry
        batch = join(shared, own)
        if old is None:
            state = None
            value, grads = value_and_grad(loss)(params, *batch)
        else:
            (value, state), grads = value_and_grad(loss, has_aux=True)(params, old, *batch)

        def value_fn(params: Any) -> Tensor:
            return loss(params, *batch) if old is None else loss(params, old, *batch)[0]

        known = {"value": value, "grad": grads, "value_fn": value_fn}
        extra = {name: known[name] for name in optimizer.extra if name in known}
        params, opt_state = optimizer.step(grads, opt_state, params, **extra)
        return (params, opt_state, state), value

    return step


def scanned(step: Step, carry: Carry, shared: Any, own: Any, count: int) -> tuple[Carry, Tensor]:
    """Make several steps as one loop: what they carry are the tensors, everything else must stay as it is.

    Raises:
        TransformError: a step changes what is not a tensor.
    """
    leaves, structure = tree.flatten(carry)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    @wraps(step, updated=())
    def body(tensors: list[Tensor], x: Any) -> tuple[list[Tensor], Tensor]:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        after, value = step(tree.unflatten(structure, filled), shared, x)
        new = tree.ordered(structure, after, "train: what a step of the compiled loop returns")
        for place, (old, now) in enumerate(zip(leaves, new, strict=True)):
            if not isinstance(old, Tensor) and (isinstance(now, Tensor) or old != now):
                path = tree.paths(carry)[place]
                raise TransformError(
                    f"train: a step makes {tree.describe(now)} of {tree.describe(old)} at `{path}` of (params, "
                    "opt_state, state): a compiled loop carries tensors alone; keep it as a tensor"
                )
        return [new[place] for place in places], value

    tensors, losses = scan(body, [leaves[place] for place in places], own, length=count)
    for place, tensor in zip(places, tensors, strict=True):
        leaves[place] = tensor
    return tree.unflatten(structure, leaves), losses


def epoch_of(step: Step, size: int) -> Step:
    """Return what makes all steps of one epoch: of batches of `size` rows and a last one that is smaller."""

    @wraps(step, updated=())
    def epoch(carry: Carry, shared: Any, own: dict[str, Tensor]) -> tuple[Carry, Tensor]:
        rows, numbers = own["rows"], own["number"]
        count = len(rows) // size
        whole = {"number": numbers[:count], "rows": rows[: count * size].view(count, size)}
        carry, losses = scanned(step, carry, shared, whole, count)
        carry, last = step(carry, shared, {"number": numbers[count], "rows": rows[count * size :]})
        return carry, torch.cat([losses, last[None]])

    return epoch


class Runner:
    """Runs windows of steps: by a program where that pays, and one step after another elsewhere.

    Which way depends on nothing but the numbers of steps, so that a run repeats bit for bit.
    """

    def __init__(self, compiled: bool) -> None:
        """Take whether steps may be compiled."""
        self._compiled = compiled
        self._programs: dict[tuple[Step, bool], Step] = {}
        self._done: Counter[Hashable] = Counter()  # steps that ran uncompiled, of each kind of batches

    def run(self, carry: Carry, window: Window) -> tuple[Carry, Tensor]:
        """Make the steps of a window; return what they carry on, and the loss of each.

        Raises:
            TransformError: a step cannot be compiled, or the loss is none.
        """
        if self._pays(window):
            shared, own = window.together()
            carry, losses = self._called(window.step, carry, shared, own, window.turns)
            return carry, losses.flatten()
        losses = []
        for i in range(window.turns):
            shared, own = window.one(i)
            if self._compiled and self._done[window.kind] >= FEW_SINGLE and window.kind is not None:
                carry, value = self._called(window.step, carry, shared, own)
            else:
                self._done[window.kind] += window.steps // window.turns
                carry, value = window.step(carry, shared, own)
            losses.append(value)
        return carry, torch.stack(losses).flatten()

    def _pays(self, window: Window) -> bool:
        if not self._compiled or not window.alike or window.steps < 2:
            return False
        if not tree.unwatched():  # the program is someone else's: a loop in it is shorter than its steps
            return True
        return window.full and self._done[window.kind] + window.steps >= FEW

    def _called(self, step: Step, *args: Any) -> tuple[Carry, Tensor]:
        many = len(args) > 3
        if (step, many) not in self._programs:

            @wraps(step, updated=())
            def run(*given: Any) -> tuple[Carry, Tensor]:
                return scanned(step, *given) if many else step(*given)

            self._programs[step, many] = jit(run)
        try:
            return self._programs[step, many](*args)
        except TransformError as error:
            if not tree.unwatched() or not str(error).startswith(_OF_PROGRAMS):
                raise
            raise TransformError(f"{error}; {_WAY_OUT}") from error
