"""L-BFGS (Liu and Nocedal 1989, "On the limited memory BFGS method", algorithm 2.1; Nocedal 1980)."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import (
    Optimizer,
    active_leaves,
    check_count,
    check_given,
    hint_torch_keywords,
    init_per_leaf,
    init_step_count,
    is_differentiable,
    is_negligible,
    overflow_scale,
    safe_divide,
    safe_norm,
)
from torchpure.optim.line_search import (
    Leaves,
    scale_by_more_thuente_linesearch,
    scale_by_strong_wolfe_linesearch,
    scale_by_zoom_linesearch,
)
from torchpure.optim.transformations import scale, scale_by_learning_rate


class LbfgsState(NamedTuple):
    """State of `scale_by_lbfgs`. All leaves are in one real vector; the newest pair comes first."""

    step: Step  # float64, shape ()
    params: Tensor  # shape (entries,)
    grads: Tensor  # shape (entries,)
    moved: Tensor  # differences of parameters, shape (memory_size, entries)
    turned: Tensor  # differences of gradients, shape (memory_size, entries)
    weights: Tensor  # 1 / ⟨moved, turned⟩, shape (memory_size,)


_FORMS = ("optax", "torch", "scipy")


def _is_stored(form: str, product: Tensor, descent: Tensor) -> Tensor:
    """Return whether a pair is stored. `product` is ⟨s, y⟩, and `descent` is −⟨s, g⟩ with the old gradient."""
    if form == "optax":
        return torch.ones_like(product, dtype=torch.bool)
    return product > (1e-10 if form == "torch" else torch.finfo(product.dtype).eps * descent)


def _default_search(form: str) -> Optimizer[Any]:
    if form == "torch":
        return scale_by_strong_wolfe_linesearch()
    if form == "scipy":
        return scale_by_more_thuente_linesearch()
    return scale_by_zoom_linesearch(20, initial_guess_strategy="one")


@hint_torch_keywords
def scale_by_lbfgs(
    *, memory_size: int = 10, scale_init_precond: bool = True, form: Literal["optax", "torch", "scipy"] = "optax"
) -> Optimizer[LbfgsState]:
    """Multiply gradients by an estimate of the inverse Hessian: u = H g.

    H comes from the last `memory_size` pairs of differences s of parameters and y of gradients. Its initial scale is
    ⟨s, y⟩ / ⟨y, y⟩ of the newest pair, or min(1, 1 / ‖g‖) at the first step; without `scale_init_precond` it is 1. The
    form "torch" replaces ‖g‖ with the sum of |g|, and skips pairs with ⟨s, y⟩ ≤ 1e-10. The form "scipy" has 1 / ‖g‖ at
    the first step, and skips pairs with ⟨s, y⟩ ≤ −eps ⟨s, g⟩. A gradient that is None counts as 0.

    Raises:
        ValueError: `memory_size` is not a whole number, at least 1, or `form` is unknown.

    >>> lbfgs, params = scale_by_lbfgs(), torch.tensor([3.0])
    >>> lbfgs.update(torch.tensor([4.0]), lbfgs.init(params), params)[0]
    tensor([1.])
    """
    check_count("scale_by_lbfgs", memory_size=memory_size)
    if form not in _FORMS:
        raise ValueError(f"scale_by_lbfgs: form must be one of {', '.join(_FORMS)}, got {form!r}")

    def init(params: Params) -> LbfgsState:
        zero = torch.zeros_like(
            _to_vector(tree.leaves(init_per_leaf(lambda leaf: leaf, params)), init_step_count(params))
        )
        pairs = zero.new_zeros(memory_size, zero.numel())
        return LbfgsState(
            init_step_count(params), zero, zero.clone(), pairs, pairs.clone(), zero.new_zeros(memory_size)
        )

    def update(grads: Grads, state: LbfgsState, params: Params) -> tuple[Updates, LbfgsState]:
        check_given("scale_by_lbfgs", params)
        filled = tree.map(_zero_if_none, params, grads)
        (leaves, param_leaves), rebuild = active_leaves("scale_by_lbfgs", filled, (), params)
        g, p = _to_vector(leaves, state.step), _to_vector(param_leaves, state.step)
        s, y = p - state.params, g - state.grads
        product = s @ y
        is_stored = (state.step > 0) & product.isfinite() & _is_stored(form, product, -(s @ state.grads))
        new_rows = (s, y, safe_divide(torch.ones_like(product), product))
        moved, turned, weights = (_push(old, row, is_stored) for old, row in zip(state[3:], new_rows, strict=True))
        initial_scale = _newest_pair_scale(moved[0], turned[0]) if scale_init_precond else 1.0
        if scale_init_precond:
            initial_scale = torch.where(state.step > 0, initial_scale, _first_scale(g, form))
        direction = rebuild(_split(_two_loops(g, moved, turned, weights, initial_scale), leaves))
        updates = tree.map(lambda u, old: None if old is None else u, direction, grads)
        return updates, LbfgsState(state.step + 1, p, g, moved, turned, weights)

    return Optimizer(init, update)


def _zero_if_none(leaf: Any, gradient: Any) -> Any:
    if gradient is not None or not is_differentiable(leaf):
        return gradient
    return torch.zeros_like(leaf)


def _to_vector(leaves: Leaves, step: Step) -> Tensor:
    rows = [leaf.reshape(-1) for leaf in leaves if isinstance(leaf, Tensor)]
    return torch.cat(rows) if rows else step.new_zeros(0)


def _split(row: Tensor, leaves: Leaves) -> Leaves:
    parts = row.split([leaf.numel() for leaf in leaves]) if leaves else []
    return [part.reshape(leaf.shape).to(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)]


def _push(old: Tensor, new_row: Tensor, is_stored: Tensor) -> Tensor:
    return torch.where(is_stored, torch.cat([new_row.unsqueeze(0), old[:-1]]), old)


def _newest_pair_scale(s: Tensor, y: Tensor) -> Tensor:
    size = overflow_scale(y)
    scaled = y / size
    square = scaled @ scaled
    return torch.where(is_negligible(square), 1, safe_divide(s @ scaled, square) / size)


def _first_scale(g: Tensor, form: str) -> Tensor:
    scale = overflow_scale(g)
    size = g.abs().sum() if form == "torch" else safe_norm(g / scale) * scale
    inverse = 1 / torch.where(is_negligible(size), 1, size)
    return inverse if form == "scipy" else inverse.clamp(max=1)


def _two_loops(g: Tensor, moved: Tensor, turned: Tensor, weights: Tensor, initial_scale: Any) -> Tensor:
    """Return H g by the two-loop recursion (Nocedal and Wright 2006, algorithm 7.4). Unused pairs have weight 0."""
    alphas = []
    for s, y, weight in zip(moved, turned, weights, strict=True):
        alphas.append((weight * s) @ g)
        g = g - alphas[-1] * y
    g = initial_scale * g
    for s, y, weight, alpha in zip(*(part.flip(0) for part in (moved, turned, weights)), alphas[::-1], strict=True):
        g = g + (alpha - (weight * y) @ g) * s
    return g


@hint_torch_keywords
def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    *,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: Optimizer[Any] | None = None,
    form: Literal["optax", "torch", "scipy"] = "optax",
) -> Optimizer[tuple[Any, ...]]:
    """Step with L-BFGS and a line search: p ← p − t learning_rate H g, with H of `scale_by_lbfgs`.

    A step needs `value=` and `grad=` at the parameters, and `value_fn=`, the function of the parameters. By default the
    line search is `scale_by_zoom_linesearch(20, initial_guess_strategy="one")`; with `linesearch=identity()` t is 1.
    The form "torch" is one iteration of torch.optim.LBFGS with its strong Wolfe search. The form "scipy" is SciPy's
    L-BFGS-B without bounds. The state has the value and the gradient at the new parameters: see
    `value_and_grad_from_state`.

    Raises:
        ValueError: `memory_size` is not a whole number, at least 1, `learning_rate` is negative, or `form` is unknown.

    >>> opt, params = lbfgs(), torch.tensor([1.0])
    >>> f = lambda p: 2 * p.square().sum()
    >>> g = torch.tensor([4.0])
    >>> opt.step(g, opt.init(params), params, value=f(params), grad=g, value_fn=f)[0]
    tensor([0.])
    """
    return chain(
        scale_by_lbfgs(memory_size=memory_size, scale_init_precond=scale_init_precond, form=form),
        scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate),
        _default_search(form) if linesearch is None else linesearch,
    )
