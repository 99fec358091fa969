"""How a step moves what a run carries: the optimizer's step, with a guard and an observer if they are asked for."""

from typing import Any, NamedTuple

from torchpure._types import Params
from torchpure.optim import Optimizer

from ._divergence import OnNonfinite, guarded
from ._step_state import StepState, start_guard
from ._steps import Advance, Carry, Evaluation, plain_advance
from .callbacks import Observer, StepValues


class Extras(NamedTuple):
    """What a run does at each step beside the optimizer's step."""

    on_nonfinite: OnNonfinite | None = None
    observer: Observer[Any] | None = None

    def start(self, opt_state: Any, params: Params) -> Any:
        """Return what a run carries in the place of the state of the optimizer."""
        if self == Extras():
            return opt_state
        guard = None if self.on_nonfinite is None else start_guard(params)
        return StepState(opt_state, guard, None if self.observer is None else self.observer.init(params))

    def advance(self, optimizer: Optimizer[Any]) -> Advance:
        """Return the step."""
        if self == Extras():
            return plain_advance(optimizer)
        step = _unguarded(optimizer) if self.on_nonfinite is None else guarded(optimizer, self.on_nonfinite)
        return step if self.observer is None else _observed(step, self.observer)


def _unguarded(optimizer: Optimizer[Any]) -> Advance:
    inner = plain_advance(optimizer)

    def advance(carry: Carry, evaluation: Evaluation) -> Carry:
        params, held, state = carry
        params, opt_state, state = inner((params, held.opt_state, state), evaluation)
        return params, held._replace(opt_state=opt_state), state

    return advance


def _observed(step: Advance, observer: Observer[Any]) -> Advance:
    def advance(carry: Carry, evaluation: Evaluation) -> Carry:
        params, held, state = step(carry, evaluation)
        seen = observer.step(held.observed, StepValues(params, evaluation.grads, evaluation.value))
        return params, held._replace(observed=seen), state

    return advance
