"""Find a loss or a gradient that is not finite before its update is applied, inside the compiled loop."""

from collections.abc import Callable
from typing import Any, Literal, NoReturn, get_args

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Params
from torchpure.errors import CheckError, NonFiniteError
from torchpure.optim import Optimizer, apply_updates
from torchpure.optim.core import select, zero_unless
from torchpure.transforms.debug import callback, check

from ._reports import is_collected, report
from ._step_state import GuardState, StepState, split_step_state
from ._steps import Advance, Carry, Evaluation
from .callbacks import Divergence, describe_bad

OnNonfinite = Literal["raise", "skip", "freeze", "reduce_rate"]
RATE_FACTOR = 0.5  # of the updates after each bad step, with "reduce_rate"
MIN_RATE_SCALE = 2.0**-20  # below it the updates are not reduced further
_WAY_OUT = 'lower the learning rate, clip the gradients, or pass on_nonfinite="skip"'


def check_policy(caller: str, on_nonfinite: Any) -> None:
    """Check what to do about steps that are not finite.

    Raises:
        ValueError: it is not one of the names, and not None.
    """
    if on_nonfinite is not None and on_nonfinite not in get_args(OnNonfinite):
        names = ", ".join(map(repr, get_args(OnNonfinite)))
        raise ValueError(f"{caller}: on_nonfinite must be None or one of {names}, got {on_nonfinite!r}")


def guarded(optimizer: Optimizer[Any], policy: OnNonfinite) -> Advance:
    """Return a step of an optimizer that is applied only if the loss and all gradients are finite.

    Law: where all are finite, the step is the optimizer's own.
    """
    stops, reduces = policy in ("raise", "freeze"), policy == "reduce_rate"

    def move(carry: Carry, evaluation: Evaluation, *, unscaled: bool) -> tuple[Params, Any]:
        params, (opt_state, guard, _), _ = carry
        grads, extra = evaluation.grads, evaluation.extra
        if unscaled:
            return optimizer.step(grads, opt_state, params, **extra)
        updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
        return apply_updates(params, tree.scale(updates, guard.scale) if reduces else updates), opt_state

    def advance(carry: Carry, evaluation: Evaluation) -> Carry:
        params, held, old_state = carry
        if tree.plain([held.guard.first]):
            return advance_eager(carry, evaluation)
        noted, applies = _note(held.guard, _bad_parts(params, evaluation), stops=stops, reduces=reduces)
        new = *move(carry, _zeroed(applies, evaluation), unscaled=False), evaluation.state
        params, opt_state, state = select(applies, new, (params, held.opt_state, old_state))
        return params, StepState(opt_state, noted, held.observed), state

    def advance_eager(carry: Carry, evaluation: Evaluation) -> Carry:
        """Make no step where none is applied: `donate` would reuse the memory of the parameters."""
        params, held, old_state = carry
        if _surely_finite(evaluation):
            noted, applies = held.guard._replace(number=held.guard.number + 1), not stops or held.guard.first == 0
        else:
            noted, applies = _note(held.guard, _bad_parts(params, evaluation), stops=stops, reduces=reduces)
        if not bool(applies):
            return params, held._replace(guard=noted), old_state
        unscaled = not reduces or float(held.guard.scale) == 1
        params, opt_state = move(carry, evaluation, unscaled=unscaled)
        return params, StepState(opt_state, noted, held.observed), evaluation.state

    return advance


def _surely_finite(evaluation: Evaluation) -> bool:
    """Return True only if the loss and all gradients are finite: then their sums are, unless a sum overflows."""
    grads = [leaf.detach().sum() for leaf in tree.leaves(evaluation.grads)]
    return bool(torch.stack([evaluation.value.detach(), *grads]).isfinite().all())


def _zeroed(applies: Tensor, evaluation: Evaluation) -> Evaluation:
    """Return an evaluation without the numbers that are not used: a NaN there makes derivatives NaN."""
    given = {name: part for name, part in evaluation.extra.items() if not callable(part)}
    grads, given = zero_unless(applies, (evaluation.grads, given))
    return evaluation._replace(grads=grads, extra=evaluation.extra | given)


def _bad_parts(params: Params, evaluation: Evaluation) -> Tensor:
    """Return whether the loss, and the gradient of each leaf, is not finite: bool, shape (1 + leaves,)."""
    structure = tree.structure(params)
    grads = tree.align(structure, params, evaluation.grads, "train: the gradients")
    finite = [evaluation.value.isfinite()]
    good = torch.ones_like(finite[0])
    finite += [leaf.isfinite().all() if isinstance(leaf, Tensor) else good for leaf in grads]
    return ~torch.stack(finite)


def _note(state: GuardState, bad: Tensor, *, stops: bool, reduces: bool) -> tuple[GuardState, Tensor]:
    """Return the next state of a guard, and whether the step is applied."""
    is_bad, number = bad.any(), state.number + 1
    counted = is_bad & (state.first == 0) if stops else is_bad
    is_first = is_bad & (state.first == 0)
    places = torch.arange(len(bad), device=bad.device)
    position = torch.where(bad, places, len(bad)).amin()
    scale = state.scale
    if reduces:
        scale = torch.where(is_bad, (scale * RATE_FACTOR).clamp(min=MIN_RATE_SCALE), scale)
    noted = GuardState(
        number,
        torch.where(is_first, number, state.first),
        torch.where(is_first, position, state.position),
        state.count + counted,
        scale,
    )
    return noted, noted.first == 0 if stops else ~is_bad


def divergence_of(guard: GuardState | None, params: Params) -> Divergence | None:
    """Return what a guard found."""
    if guard is None:
        return None
    leaves: dict[str, tuple[()]] = dict.fromkeys(tree.paths(params), ())
    return Divergence(guard.first, guard.position, guard.count, guard.scale, leaves)


def refuse_nonfinite(caller: str, carry: Carry, all_params: Callable[[Params], Params] = lambda params: params) -> None:
    """Raise the error of a bad step, after the window that has it. Under transforms this waits for the end of the run.

    Raises:
        NonFiniteError: a step was not finite.
    """
    params, held, state = carry
    opt_state, guard, _ = split_step_state(held)
    if guard is None or not tree.unwatched() or is_collected() or not bool(guard.first):
        return
    found = divergence_of(guard, params)
    assert found is not None
    raise NonFiniteError(
        f"{caller}: {describe_bad(found.path)} is not finite at step {int(found.step)}; the error holds the params, "
        f"opt_state and state before that step: {_WAY_OUT}",
        step=int(found.step),
        path=found.path,
        params=all_params(params),
        opt_state=opt_state,
        state=state,
    )


def refuse_members(caller: str, found: Divergence | None, result: Any) -> None:
    """Raise the error of members of a vmap that were not finite, with the results of all members.

    Inside `sweep`, the sweep raises it, after all members have run. In a program it is a `check`.

    Raises:
        NonFiniteError: a member was not finite.
        CheckError: a member was not finite, when a program runs.
    """
    if found is None or report(found) or tree.unwatched():
        return
    message = f"{caller}: a step is not finite"
    try:
        check(found.step == 0, message)
    except CheckError as error:
        _refuse_gathered(message, error.members, found, result)


def _refuse_gathered(message: str, members: list[tuple[int, ...]], found: Divergence, result: Any) -> NoReturn:
    rows: list[tuple[Divergence, Any]] = []
    callback(lambda *trees: rows.append(trees), found, result)
    bad = [one for one, _ in rows if bool(one.step)]
    all_results = tree.map(_stacked, *(one for _, one in rows))
    raise members_error(message, members, bad[0], all_results if members else rows[0][1]) from None


def _stacked(*leaves: Any) -> Any:
    return torch.stack(leaves) if isinstance(leaves[0], Tensor) else leaves[0]


def members_error(message: str, members: list[tuple[int, ...]], first: Divergence, result: Any) -> NonFiniteError:
    """Return the error of some members of a vmap, of which `first` is the first one's divergence."""
    return NonFiniteError(
        f"{message}; first {describe_bad(first.path)} at step {int(first.step)}; error.result has the results of all "
        f"members: {_WAY_OUT}",
        step=int(first.step),
        path=first.path,
        members=members,
        result=result,
    )
