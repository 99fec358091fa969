"""Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.core import (
    Kernel,
    Mask,
    Number,
    Optimizer,
    active_leaves,
    adam_kernels,
    bias_correction,
    check_given,
    check_nonnegative,
    check_scalar_or_schedule,
    check_unit_interval,
    evaluate_schedule,
    hint_torch_keywords,
    init_moments,
    init_step_count,
    is_zero,
    leafwise,
    mask_fn,
    mask_tree,
    merge_masked,
    safe_sqrt,
    undo_adam,
)


class AdamState(NamedTuple):
    """State of `scale_by_adam`, `adam` and `adamw`."""

    step: Step  # float64, shape ()
    mean: Params  # running mean of the gradients
    square: Params  # running mean of their squares; of a complex leaf, those of the real and the imaginary part


@hint_torch_keywords
def scale_by_adam(
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    nesterov: bool = False,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[AdamState]:
    """Divide the mean gradient by the root of the mean square: u = m̂ / (√(v̂ + eps_root) + eps).

    m ← b1 m + (1 − b1) g, v ← b2 v + (1 − b2) g², m̂ = m / (1 − b1ᵗ), v̂ = v / (1 − b2ᵗ). With `nesterov`,
    m̂ = b1 m / (1 − b1ᵗ⁺¹) + (1 − b1) g / (1 − b1ᵗ) (Dozat 2016, algorithm 2). m and v have the
    dtype `accumulator_dtype`, m that of `mu_dtype` if given. The default is that of the parameter, at least float32.

    Raises:
        ValueError: `b1` or `b2` is not in [0, 1), `eps` or `eps_root` negative.

    >>> adam = scale_by_adam()
    >>> params = torch.tensor([1.0])
    >>> adam.update(torch.tensor([2.0]), adam.init(params), params)[0]
    tensor([1.])
    """
    return build_scale("scale_by_adam", b1, b2, eps, eps_root, mu_dtype, nesterov, accumulator_dtype=accumulator_dtype)


@hint_torch_keywords
def adam(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: torch.dtype | None = None,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[AdamState]:
    """Step with Adam: p ← p − learning_rate m̂ / (√(v̂ + eps_root) + eps).

    m ← b1 m + (1 − b1) g, v ← b2 v + (1 − b2) g², m̂ = m / (1 − b1ᵗ), v̂ = v / (1 − b2ᵗ). The step is differentiable
    with respect to every input. Its derivatives are finite even where a gradient is exactly zero.

    Raises:
        ValueError: `learning_rate`, `eps` or `eps_root` is negative, `b1` or `b2` not in [0, 1).

    >>> opt = adam(0.1)
    >>> params = torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    scaled = build_scale("adam", b1, b2, eps, eps_root, mu_dtype, nesterov=False, accumulator_dtype=accumulator_dtype)
    plain = is_zero(eps_root) and mu_dtype is None and accumulator_dtype is None
    if not plain:
        return descend("adam", learning_rate, 0.0, scaled)
    kernels = adam_kernels("adam", learning_rate, b1, b2, eps, 0.0)
    return descend("adam", learning_rate, 0.0, scaled, kernels, undo=undo_adam(learning_rate, b1, b2, eps))


def build_scale(
    caller: str,
    b1: Number,
    b2: Number,
    eps: Number,
    eps_root: Number,
    mu_dtype: torch.dtype | None,
    nesterov: bool,
    *,
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[AdamState]:
    """Build `scale_by_adam`. Its errors have the name `caller`."""
    check_unit_interval(caller, b1=b1, b2=b2)
    check_nonnegative(caller, eps=eps, eps_root=eps_root)

    def init(params: Params) -> AdamState:
        return AdamState(
            init_step_count(params),
            init_moments(params, mu_dtype or accumulator_dtype),
            init_moments(params, accumulator_dtype),
        )

    def update(grads: Grads, state: AdamState, params: Params) -> tuple[Updates, AdamState]:
        (g, m, v, _), rebuild = active_leaves(caller, grads, (state.mean, state.square), params)
        step = state.step + 1
        m = tree.lerp(m, g, 1 - b1)
        v = tree.add(tree.scale(v, b2), tree.scale(tree.map(torch.square, g), 1 - b2))
        ratio = _ratio(1.0 / bias_correction(b2, step), eps, eps_root)
        if nesterov:
            mean_weight, grad_weight = b1 / bias_correction(b1, step + 1), (1 - b1) / bias_correction(b1, step)
            direction = tree.map(ratio, tree.add(tree.scale(m, mean_weight), tree.scale(g, grad_weight)), v)
        else:
            direction = tree.map(ratio, tree.scale(m, 1.0 / bias_correction(b1, step)), v)
        return rebuild(direction), AdamState(step, rebuild(m, state.mean), rebuild(v, state.square))

    return Optimizer(init, update)


def _ratio(correction: Tensor, eps: Number, eps_root: Number) -> Callable[[Tensor, Tensor], Tensor]:
    """Return m̂ / (√(correction v + eps_root) + eps) as a function of m̂ and v."""

    def ratio(m: Tensor, v: Tensor) -> Tensor:
        return m / (safe_sqrt(tree.cast(correction, v) * v + tree.cast(eps_root, v)) + tree.cast(eps, v))

    return ratio


def descend(
    caller: str,
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule,
    scaled: Optimizer[AdamState],
    kernels: Sequence[Kernel | None] = (),
    *,
    mask: Mask = None,
    undo: Callable[..., tuple[Params, AdamState]] | None = None,
) -> Optimizer[AdamState]:
    """Build p ← p − learning_rate (u + weight_decay p), with u of `scaled`.

    `kernels` is empty, or (plain kernel, donated kernel). The mask selects the leaves that decay.
    """
    check_scalar_or_schedule(caller, learning_rate)
    check_scalar_or_schedule(caller, weight_decay, "weight_decay")
    flags_of = None if mask is None else mask_fn(caller, mask)

    def decayed(direction: Updates, params: Params, decay: Number) -> Updates:
        check_given(caller, params)
        flags = None if flags_of is None else flags_of(params)
        selected = direction if flags is None else mask_tree(flags, params, direction, caller)
        updates = leafwise(caller, lambda u, p: u + decay * p, selected, (), params)
        return updates if flags is None else merge_masked(flags, params, updates, direction, caller)

    def update(grads: Grads, state: AdamState, params: Params) -> tuple[Updates, AdamState]:
        direction, new_state = scaled.rule(grads, state, params)
        if not is_zero(weight_decay):
            direction = decayed(direction, params, evaluate_schedule(weight_decay, state.step))
        return tree.scale(direction, -evaluate_schedule(learning_rate, state.step)), new_state

    kernel, donated = kernels or (None, None)
    return Optimizer(scaled.init, update, kernel, donated=donated, undo=undo)
