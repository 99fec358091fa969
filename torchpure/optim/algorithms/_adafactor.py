"""Adafactor (Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 and 5)."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    EmptyState,
    Mask,
    Number,
    Optimizer,
    by_real_parts,
    check_count,
    check_nonnegative,
    check_scalar_or_schedule,
    ema_update,
    evaluate_schedule,
    hint_torch_keywords,
    init_per_leaf,
    init_step_count,
    is_zero,
    leafwise,
    safe_rms,
    safe_sqrt,
    scalar_like,
    stateless_leafwise,
)
from torchpure.optim.transformations import add_decayed_weights, clip_by_block_rms, ema, scale, scale_by_learning_rate

_FORMS = ("optax", "torch")


class Factored(NamedTuple):
    """Factors of the mean square of a matrix, or of the two longest dimensions of a leaf."""

    rows: Tensor  # mean over the longest dimension
    columns: Tensor  # mean over the second longest dimension


Squares = Tensor | Factored


class FactoredState(NamedTuple):
    """State of `scale_by_factored_rms`."""

    step: Step  # float64, shape ()
    square: Params  # for each leaf, the running mean of g², or `Factored`


@hint_torch_keywords
def scale_by_factored_rms(
    *,
    factored: bool = True,
    decay_rate: Number = 0.8,
    step_offset: Number = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: Number | None = None,
    form: Literal["optax", "torch"] = "optax",
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[FactoredState]:
    """Divide gradients by the root of a factored running mean square: u = g / √v.

    v ← β v + (1 − β) (g² + epsilon), β = 1 − (t − step_offset)^−decay_rate, with epsilon 1e-30 by default. If the two
    longest dimensions of a leaf have at least `min_dim_size_to_factor` entries, the state has only the means of rows
    and columns: v ≈ row ⊗ column / mean(row). The form "torch" factors the last two dimensions of any size. It clamps v
    at epsilon² from below instead of adding epsilon; its default epsilon is the eps of the leaf's dtype.

    Raises:
        ValueError: `form` is not "optax" or "torch", or a number is negative.

    >>> rms, params = scale_by_factored_rms(), torch.tensor([1.0])
    >>> rms.update(torch.tensor([2.0]), rms.init(params), params)[0]
    tensor([1.])
    """
    if form not in _FORMS:
        raise ValueError(f"scale_by_factored_rms: form must be optax or torch, got {form!r}")
    check_nonnegative("scale_by_factored_rms", decay_rate=decay_rate, step_offset=step_offset)
    check_count("scale_by_factored_rms", min_dim_size_to_factor=min_dim_size_to_factor)
    min_size = min_dim_size_to_factor if form == "optax" else 1

    def dims(leaf: Tensor) -> Any:  # (dimension of rows, dimension of columns), or None
        return factored_dims(tuple(leaf.shape), min_size, last=form == "torch") if factored else None

    def init(params: Params) -> FactoredState:
        return FactoredState(
            init_step_count(params), init_per_leaf(lambda leaf: _zeros(leaf, dims(leaf)), params, accumulator_dtype)
        )

    def update(grads: Grads, state: FactoredState, params: Params) -> tuple[Updates, FactoredState]:
        step = state.step + 1
        beta = 1 - (step - step_offset) ** -decay_rate

        def rule(g: Tensor, v: Squares, p: Tensor) -> tuple[Tensor, Squares]:
            added_eps = _eps(epsilon, g, form)
            squares = g.square() + added_eps if form == "optax" else g.square()
            floor = None if form == "optax" else added_eps
            if isinstance(v, Tensor):
                v = ema_update(v, squares, beta)
                return g / safe_sqrt(v if floor is None else v.clamp(min=floor**2)), v
            row_dim, column_dim = dims(g)
            row_means, column_means = squares.mean(column_dim), squares.mean(row_dim)
            v = Factored(ema_update(v.rows, row_means, beta), ema_update(v.columns, column_means, beta))
            return g / safe_sqrt(_product(*v, row_dim, column_dim, floor)), v

        updates, square = leafwise("scale_by_factored_rms", rule, grads, (state.square,), params)
        return updates, FactoredState(step, square)

    return by_real_parts(init, update)


def factored_dims(shape: tuple[int, ...], min_size: int, last: bool = False) -> tuple[int, int] | None:
    """Return the (second longest, longest) dimension, or with `last` the last two dimensions.

    Return None if there are fewer than two, or the first of them is shorter than `min_size`.

    >>> factored_dims((300, 3, 200), 128)
    (2, 0)
    """
    if len(shape) < 2:
        return None
    order = range(len(shape)) if last else [i for _, i in sorted(zip(shape, range(len(shape)), strict=True))]
    row_dim, column_dim = order[-2], order[-1]
    return (row_dim, column_dim) if shape[row_dim] >= min_size else None


def _zeros(leaf: Tensor, dims: tuple[int, int] | None) -> Squares:
    if dims is None:
        return torch.zeros_like(leaf)
    row_dim, column_dim = dims
    return Factored(leaf.new_zeros(_without(leaf.shape, column_dim)), leaf.new_zeros(_without(leaf.shape, row_dim)))


def _without(shape: torch.Size, dim: int) -> list[int]:
    return [size for i, size in enumerate(shape) if i != dim]


def _eps(eps: Number | None, leaf: Tensor, form: str) -> Number:
    if eps is not None:
        return eps
    return 1e-30 if form == "optax" else torch.finfo(leaf.dtype).eps


def _product(rows: Tensor, columns: Tensor, row_dim: int, column_dim: int, floor: Number | None) -> Tensor:
    """Return row ⊗ column / mean(row): the matrix of rank one with these means of rows and columns."""
    mean = rows.mean(row_dim - (row_dim > column_dim), keepdim=True)
    if floor is None:
        share = torch.where(mean.isinf(), 1, rows / mean)  # squares that overflow stay infinite
        return share.unsqueeze(column_dim) * columns.unsqueeze(row_dim)
    whole = rows.unsqueeze(column_dim) * columns.unsqueeze(row_dim)
    mean = mean.unsqueeze(column_dim)
    return torch.where(mean.isinf(), whole, whole / mean.clamp(min=floor)).clamp(min=floor**2)


@hint_torch_keywords
def scale_by_param_block_rms(*, min_scale: Number = 1e-3) -> Optimizer[EmptyState]:
    """Scale each leaf's update by the root mean square of the leaf: u = g max(rms(p), min_scale).

    Raises:
        ValueError: `min_scale` is negative.

    >>> scale_by_param_block_rms().update(torch.tensor([1.0, 1.0]), EmptyState(), torch.tensor([3.0, -3.0]))[0]
    tensor([3., 3.])
    """
    check_nonnegative("scale_by_param_block_rms", min_scale=min_scale)

    def rule(g: Tensor, p: Tensor) -> Tensor:
        return g * torch.maximum(safe_rms(p), scalar_like(min_scale, like=p))

    return stateless_leafwise("scale_by_param_block_rms", rule)


@hint_torch_keywords
def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    *,
    min_dim_size_to_factor: int = 128,
    decay_rate: Number = 0.8,
    decay_offset: Number = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Number | None = 1.0,
    momentum: Number | None = None,
    dtype_momentum: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    eps: Number | None = None,
    min_scale: Number = 1e-3,
    factored: bool = True,
    weight_decay_mask: Mask = None,
    form: Literal["optax", "torch"] = "optax",
    accumulator_dtype: torch.dtype | None = None,
) -> Optimizer[tuple[Any, ...]]:
    """Step with Adafactor: p ← p − learning_rate rms(p) clip(g / √v) − weight_decay p.

    g / √v is that of `scale_by_factored_rms`. A learning rate of None is 1. The form "torch" is that of
    torch.optim.Adafactor: the learning rate is at most 1 / √t, p decays by learning_rate · weight_decay, and matrices
    of any size are factored.

    Raises:
        ValueError: `form` is not "optax" or "torch", or a number is negative.

    >>> opt, params = adafactor(0.1), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.9000])
    """
    rms = scale_by_factored_rms(
        factored=factored,
        decay_rate=decay_rate,
        step_offset=decay_offset,
        min_dim_size_to_factor=min_dim_size_to_factor,
        epsilon=eps,
        form=form,
        accumulator_dtype=accumulator_dtype,
    )
    parts: list[Optimizer[Any]] = [rms]
    if clipping_threshold is not None:
        parts.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        check_scalar_or_schedule("adafactor", learning_rate)
        parts.append(
            scale_by_learning_rate(learning_rate if form == "optax" else _bounded(learning_rate), flip_sign=False)
        )
    if multiply_by_parameter_scale:
        parts.append(scale_by_param_block_rms(min_scale=min_scale))
    if momentum is not None:
        parts.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum or accumulator_dtype))
    if not is_zero(weight_decay):
        decay = weight_decay if form == "optax" else _scaled_decay(learning_rate, weight_decay)
        parts.append(add_decayed_weights(decay, mask=weight_decay_mask))
    return chain(*parts, scale(-1.0))


def _bounded(learning_rate: ScalarOrSchedule) -> ScalarOrSchedule:
    """Bound a learning rate by 1 / √t."""

    def schedule(step: Step) -> Tensor:
        bound = (step + 1) ** -0.5
        return torch.minimum(scalar_like(evaluate_schedule(learning_rate, step), like=bound), bound)

    return schedule


def _scaled_decay(learning_rate: ScalarOrSchedule | None, weight_decay: ScalarOrSchedule) -> ScalarOrSchedule:
    if learning_rate is None:
        return weight_decay
    if callable(learning_rate) or callable(weight_decay):
        return lambda step: (
            scalar_like(evaluate_schedule(learning_rate, step), like=step) * evaluate_schedule(weight_decay, step)
        )
    return learning_rate * weight_decay
