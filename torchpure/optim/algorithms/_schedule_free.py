"""Schedule-free learning (Defazio et al. 2024, arXiv:2405.15682, algorithm 1)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Number,
    Optimizer,
    check_nonnegative,
    check_optimizer,
    check_scalar_or_schedule,
    check_unit_interval,
    evaluate_schedule,
    hint_torch_keywords,
    init_average,
    init_scalar,
    init_step_count,
    is_zero,
    leafwise,
    safe_divide,
    scalar_like,
)
from torchpure.optim.schedules import warmup_constant_schedule
from torchpure.optim.transformations import add_decayed_weights, scale_by_learning_rate

from ._rmsprop import scale_by_rms
from ._sgd import sgd


class ScheduleFreeState(NamedTuple):
    """State of `schedule_free`."""

    step: Step  # float64, shape ()
    inner: Any  # state of the base optimizer
    base: Params  # z: the initial parameters plus all updates of the base optimizer
    weight_sum: Tensor  # Σw, the sum of the weights so far; float64, shape ()
    max_lr: Tensor  # largest learning rate so far; float64, shape ()
    b1: Tensor  # weight of the average x in the parameters y; float64, shape ()


@hint_torch_keywords
def schedule_free(
    base_optimizer: Optimizer[Any],
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    weight_lr_power: Number = 2.0,
    state_dtype: torch.dtype | None = None,
) -> Optimizer[ScheduleFreeState]:
    """Average the steps of a base optimizer instead of decaying its learning rate: y ← b1 x + (1 − b1) z.

    z ← z + base(g) and x ← (1 − c) x + c z, where c = wₜ / Σw and w = max_lr^weight_lr_power; max_lr is the largest
    learning rate so far. The parameters are y. For evaluation use x, which is
    `schedule_free_eval_params(state, params)`. Give the same `learning_rate` to the base optimizer, and no momentum:
    b1 replaces it. A schedule is read at the step count of the base optimizer. optax reads it one step later.

    Raises:
        ValueError: `b1` is not in (0, 1), or `learning_rate` or `weight_lr_power` is negative.

    >>> from torchpure import optim
    >>> opt, params = schedule_free(optim.sgd(0.1), 0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    check_optimizer("schedule_free", base_optimizer)
    check_scalar_or_schedule("schedule_free", learning_rate)
    check_unit_interval("schedule_free", b1=b1)
    check_nonnegative("schedule_free", weight_lr_power=weight_lr_power)
    if is_zero(b1):
        raise ValueError("schedule_free: b1 must be greater than 0: at 0 the average x is not in the parameters y")

    def init(params: Params) -> ScheduleFreeState:
        z = init_average(params, state_dtype)
        numbers = (init_scalar(value, params) for value in (0.0, 0.0, b1))
        return ScheduleFreeState(init_step_count(params), base_optimizer.init(params), z, *numbers)

    def update(grads: Grads, state: ScheduleFreeState, params: Params, **extra: Any) -> tuple[Updates, Any]:
        base_updates, inner = base_optimizer.update(grads, state.inner, params, **extra)
        lr = scalar_like(evaluate_schedule(learning_rate, state.step), like=state.max_lr)
        max_lr = torch.maximum(state.max_lr, lr)
        weight = torch.where(max_lr > 0, torch.where(max_lr > 0, max_lr, 1) ** weight_lr_power, 0)
        total = state.weight_sum + weight
        weight_share = safe_divide(weight, total)

        def rule(u: Tensor, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            next_z = z + u
            x = (1 - weight_share) * _average(y, z, b1) + weight_share * next_z
            return b1 * x + (1 - b1) * next_z - y, next_z

        updates, z = leafwise("schedule_free", rule, base_updates, (state.base,), params)
        return updates, ScheduleFreeState(state.step + 1, inner, z, total, max_lr, state.b1.clone())

    return Optimizer(init, update, extra=base_optimizer.extra)


def _average(y: Tensor, z: Tensor, b1: Number) -> Tensor:
    return (y - (1 - b1) * z) / b1


def schedule_free_eval_params(state: ScheduleFreeState, params: Params) -> Params:
    """Return the average x of a schedule-free run, for evaluation: x = (y − (1 − b1) z) / b1.

    Raises:
        TypeError: the state is not that of `schedule_free`. For a chain, pass that part of its state.

    >>> opt, params = schedule_free_sgd(0.1), torch.tensor([1.0])
    >>> params, state = opt.step(torch.tensor([2.0]), opt.init(params), params)
    >>> schedule_free_eval_params(state, params)
    tensor([0.8000])
    """
    if not isinstance(state, ScheduleFreeState):
        raise TypeError(f"schedule_free_eval_params: wanted a ScheduleFreeState, got {type(state).__name__}")

    def average(z: Tensor | None, y: Any) -> Any:
        return y if z is None else _average(y, z, state.b1).to(y.dtype)

    return tree.map(average, state.base, params)


def _with_warmup(learning_rate: Number, warmup_steps: int | None) -> ScalarOrSchedule:
    return learning_rate if warmup_steps is None else warmup_constant_schedule(0.0, learning_rate, warmup_steps)


@hint_torch_keywords
def schedule_free_sgd(
    learning_rate: Number = 1.0,
    *,
    warmup_steps: int | None = None,
    b1: Number = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_lr_power: Number = 2.0,
    state_dtype: torch.dtype | None = None,
) -> Optimizer[ScheduleFreeState]:
    """Step with schedule-free gradient descent: `schedule_free` with the base optimizer `sgd`.

    Raises:
        ValueError: a number is out of its range.

    >>> opt, params = schedule_free_sgd(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    lr = _with_warmup(learning_rate, warmup_steps)
    base = sgd(lr) if is_zero(weight_decay) else chain(add_decayed_weights(weight_decay), sgd(lr))
    return schedule_free(base, lr, b1=b1, weight_lr_power=weight_lr_power, state_dtype=state_dtype)


@hint_torch_keywords
def schedule_free_adamw(
    learning_rate: Number = 0.0025,
    *,
    warmup_steps: int | None = None,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_lr_power: Number = 2.0,
    state_dtype: torch.dtype | None = None,
) -> Optimizer[ScheduleFreeState]:
    """Step with schedule-free AdamW.

    It is `schedule_free` with the base updates −learning_rate (g / (√v̂ + eps) + weight_decay p).

    Raises:
        ValueError: a number is out of its range.

    >>> opt, params = schedule_free_adamw(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    lr = _with_warmup(learning_rate, warmup_steps)
    base = chain(
        scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(lr),
    )
    return schedule_free(base, lr, b1=b1, weight_lr_power=weight_lr_power, state_dtype=state_dtype)
