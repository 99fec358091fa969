"""Run training steps: one by one, or many as one compiled program."""

from collections import Counter
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, State
from torchpure.errors import TransformError
from torchpure.jit import jit
from torchpure.optim import Optimizer
from torchpure.optim.core import whole
from torchpure.transforms import scan, value_and_grad
from torchpure.transforms.engine import members_apart

from ._windows import Window
from .processes import DataParallel

Carry = Any  # (params, state of the optimizer, state of the model or None)
Step = Callable[[Carry, Any, Any], tuple[Carry, Tensor]]  # (carry, shared, per_step) -> (carry, loss)

GetBatch = Callable[[Any, dict[str, Any]], tuple[Any, ...]]  # (shared, per_step) -> the batch

# Compiling costs about a second and saves 0.2 to 0.5 ms a step. Both grow with the number of operations, so compiling
# pays from a few thousand steps on for every network. The user asks for a program of many steps (`every`, or a whole
# fit), so only very short runs are not compiled. A program of a single step is compiled only after many such steps.
MIN_STEPS = 200
MIN_SINGLE_STEPS = 1000
_PROGRAM_ERRORS = ("jit:", "scan:", "train:")  # error prefixes specific to compiled programs
_UNCOMPILED_ADVICE = "or pass jit=False, which runs each step uncompiled"


class Evaluation(NamedTuple):
    """What a step knows before it moves."""

    value: Tensor  # of the loss; shape ()
    grads: Grads
    state: State | None  # of the model, after the forward pass
    extra: dict[str, Any]  # what the optimizer asks for by name


Advance = Callable[[Carry, Evaluation], Carry]


def plain_advance(optimizer: Optimizer[Any]) -> Advance:
    """Return the step of an optimizer, on (params, state of the optimizer, state of the model)."""

    def advance(carry: Carry, evaluation: Evaluation) -> Carry:
        params, opt_state, _ = carry
        params, opt_state = optimizer.step(evaluation.grads, opt_state, params, **evaluation.extra)
        return params, opt_state, evaluation.state

    return advance


def make_step(
    loss: Callable[..., Any],
    optimizer: Optimizer[Any],
    get_batch: GetBatch,
    advance: Advance | None = None,
    over: DataParallel | None = None,
) -> Step:
    """Return an optimizer step on a loss; the optimizer also gets the value and loss function if it asks for them.

    `advance` moves the carry; by default it is the optimizer's own step. `over` splits batches over processes.
    """
    advance = advance or plain_advance(optimizer)
    evaluate = value_and_grad if over is None else over.value_and_grad
    mean_loss = _itself if over is None else over.mean_of

    @wraps(loss, updated=())
    def step(carry: Carry, shared: Any, per_step: Any) -> tuple[Carry, Tensor]:
        params, _, old_state = carry
        batch = get_batch(shared, per_step)
        if old_state is None:
            state = None
            value, grads = evaluate(loss)(params, *batch)
        else:
            (value, state), grads = evaluate(loss, has_aux=True)(params, old_state, *batch)

        def value_fn(params: Any) -> Tensor:
            if old_state is None:
                return mean_loss(loss)(params, *batch)
            return mean_loss(loss, has_aux=True)(params, old_state, *batch)[0]

        available = {"value": value, "grad": grads, "value_fn": value_fn}
        extra = {name: available[name] for name in optimizer.extra if name in available}
        return advance(carry, Evaluation(value, grads, state, extra)), value

    return step


def _itself(loss: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    return loss


def scan_steps(step: Step, carry: Carry, shared: Any, per_step: Any, count: int) -> tuple[Carry, Tensor]:
    """Run several steps as one scan; it carries the tensors, and all other leaves must not change.

    Raises:
        TransformError: a step changes a leaf that is not a tensor.
    """
    leaves, structure = tree.flatten(carry)
    positions = [position for position, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    @wraps(step, updated=())
    def body(tensors: list[Tensor], x: Any) -> tuple[list[Tensor], Tensor]:
        filled = list(leaves)
        for position, tensor in zip(positions, tensors, strict=True):
            filled[position] = tensor
        after, value = step(tree.unflatten(structure, filled), shared, x)
        new = tree.ordered(structure, after, "train: what a step of the compiled loop returns")
        for position, (old, now) in enumerate(zip(leaves, new, strict=True)):
            if not isinstance(old, Tensor) and (isinstance(now, Tensor) or old != now):
                path = tree.paths(carry)[position]
                raise TransformError(
                    f"train: a step makes {tree.describe(now)} of {tree.describe(old)} at `{path}` of (params, "
                    "opt_state, state): a compiled loop carries tensors only; keep it as a tensor"
                )
        return [new[position] for position in positions], value

    tensors, losses = scan(body, [leaves[position] for position in positions], per_step, length=count)
    for position, tensor in zip(positions, tensors, strict=True):
        leaves[position] = tensor
    return tree.unflatten(structure, leaves), losses


def make_epoch(step: Step, size: int) -> Step:
    """Return a function that runs one epoch: batches of `size` rows, and a last batch that is smaller."""

    @wraps(step, updated=())
    def epoch(carry: Carry, shared: Any, per_step: dict[str, Tensor]) -> tuple[Carry, Tensor]:
        rows, numbers = per_step["rows"], per_step["number"]
        count = len(rows) // size
        full_batches = {"number": numbers[:count], "rows": rows[: count * size].view(count, size)}
        carry, losses = scan_steps(step, carry, shared, full_batches, count)
        carry, last = step(carry, shared, {"number": numbers[count], "rows": rows[count * size :]})
        return carry, torch.cat([losses, last[None]])

    return epoch


class Runner:
    """Run windows of steps, as a compiled program if that pays, else step by step.

    The choice depends only on numbers of steps, so a run is reproducible bit for bit.
    """

    def __init__(self, compiled: bool) -> None:
        """Start without programs; `compiled` allows them."""
        self._compiled = compiled
        self._programs: dict[tuple[Step, bool], Step] = {}
        self._uncompiled_steps: Counter[Hashable] = Counter()  # the number of uncompiled steps for each shape key

    def run(self, carry: Carry, window: Window) -> tuple[Carry, Tensor]:
        """Run the steps of a window; return the new carry and the loss of each step.

        Raises:
            TransformError: a step cannot be compiled, or the loss does not return a real tensor of shape ().
        """
        if self._is_worth_compiling(window):
            shared, per_step = window.stacked_arguments()
            carry, losses = self._call_program(window.step, carry, shared, per_step, window.iterations)
            return carry, whole(losses).flatten()
        losses = []
        for i in range(window.iterations):
            shared, per_step = window.arguments(i)
            if self._counts_as_compiled(window):
                carry, value = self._call_program(window.step, carry, shared, per_step)
            else:
                with members_apart():
                    carry, value = window.step(carry, shared, per_step)
            losses.append(whole(value))  # parameters in parts make a loss of all processes
        return carry, torch.stack(losses).flatten()

    def skip(self, window: Window) -> None:
        """Count the steps of a window that an earlier process ran, so that later steps are compiled as there."""
        if not self._is_worth_compiling(window):
            for _ in range(window.iterations):
                self._counts_as_compiled(window)

    def _counts_as_compiled(self, window: Window) -> bool:
        """Return whether the next single step is compiled; count it if it is not."""
        key = window.shape_key
        if self._compiled and key is not None and self._uncompiled_steps[key] >= MIN_SINGLE_STEPS:
            return True
        self._uncompiled_steps[key] += window.steps // window.iterations
        return False

    def _is_worth_compiling(self, window: Window) -> bool:
        if not self._compiled or not window.stackable or window.steps < 2:
            return False
        if not tree.unwatched():  # in an outer program or trace: a loop makes it shorter than unrolled steps
            return True
        return window.full_size and self._uncompiled_steps[window.shape_key] + window.steps >= MIN_STEPS

    def _call_program(self, step: Step, *args: Any) -> tuple[Carry, Tensor]:
        is_scan = len(args) > 3
        if (step, is_scan) not in self._programs:

            @wraps(step, updated=())
            def run(*step_args: Any) -> tuple[Carry, Tensor]:
                return scan_steps(step, *step_args) if is_scan else step(*step_args)

            self._programs[step, is_scan] = jit(run)
        try:
            return self._programs[step, is_scan](*args)
        except TransformError as error:
            if not tree.unwatched() or not str(error).startswith(_PROGRAM_ERRORS):
                raise
            raise TransformError(f"{error}; {_UNCOMPILED_ADVICE}") from error
