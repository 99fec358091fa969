"""L-BFGS (Liu and Nocedal 1989, "On the limited memory BFGS method", algorithm 2.1; Nocedal 1980)."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, ScalarOrSchedule, Step, Updates
from torchpure.optim.combinators import chain
from torchpure.optim.core import Optimizer, active, check_count, count, has_gradient, per_leaf, safe_divide, safe_norm
from torchpure.optim.line_search import (
    Leaves,
    scale_by_more_thuente_linesearch,
    scale_by_strong_wolfe_linesearch,
    scale_by_zoom_linesearch,
)
from torchpure.optim.transformations import scale, scale_by_learning_rate


class LbfgsState(NamedTuple):
    """State of `scale_by_lbfgs`; all leaves in one row, real, the newest first."""

    step: Step  # float64, shape ()
    params: Tensor  # shape (entries,)
    grads: Tensor  # shape (entries,)
    moved: Tensor  # differences of parameters, shape (memory_size, entries)
    turned: Tensor  # differences of gradients, shape (memory_size, entries)
    weights: Tensor  # 1 / ⟨moved, turned⟩, shape (memory_size,)


_FORMS = ("optax", "torch", "scipy")


def _is_kept(form: str, product: Tensor, descent: Tensor) -> Tensor:
    """Tell whether a pair is remembered, by ⟨s, y⟩ and how much the old slope promised."""
    if form == "optax":
        return torch.ones_like(product, dtype=torch.bool)
    return product > (1e-10 if form == "torch" else torch.finfo(product.dtype).eps * descent)


def _default_search(form: str) -> Optimizer[Any]:
    if form == "torch":
        return scale_by_strong_wolfe_linesearch()
    if form == "scipy":
        return scale_by_more_thuente_linesearch()
    return scale_by_zoom_linesearch(20, initial_guess_strategy="one")


def scale_by_lbfgs(
    *, memory_size: int = 10, scale_init_precond: bool = True, form: Literal["optax", "torch", "scipy"] = "optax"
) -> Optimizer[LbfgsState]:
    """Multiply gradients by an estimate of the inverse Hessian, from the last `memory_size` differences.

    The estimate begins with ⟨s, y⟩ / ⟨y, y⟩ of the newest pair, or with 1 without `scale_init_precond`; before there
    is one, with min(1, 1 / ‖g‖). The form "torch" has the sum of |g| in that place, and leaves out pairs with
    ⟨s, y⟩ ≤ 1e-10; the form "scipy" has 1 / ‖g‖, and leaves out those with ⟨s, y⟩ ≤ −eps ⟨s, g⟩. A gradient that is
    None counts as 0.

    Raises:
        ValueError: `memory_size` is not a whole number, at least 1, or the form unknown.

    >>> lbfgs, params = scale_by_lbfgs(), torch.tensor([3.0])
    >>> lbfgs.update(torch.tensor([4.0]), lbfgs.init(params), params)[0]
    tensor([1.])
    """
    check_count("scale_by_lbfgs", memory_size=memory_size)
    if form not in _FORMS:
        raise ValueError(f"scale_by_lbfgs: the form must be one of {', '.join(_FORMS)}, got {form!r}")

    def init(params: Params) -> LbfgsState:
        zero = torch.zeros_like(_row(tree.leaves(per_leaf(lambda leaf: leaf, params)), count(params)))
        pairs = zero.new_zeros(memory_size, zero.numel())
        return LbfgsState(count(params), zero, zero.clone(), pairs, pairs.clone(), zero.new_zeros(memory_size))

    def update(grads: Grads, state: LbfgsState, params: Params) -> tuple[Updates, LbfgsState]:
        filled = tree.map(_filled, params, grads)
        (leaves, places), restore = active("scale_by_lbfgs", filled, (), params)
        g, p = _row(leaves, state.step), _row(places, state.step)
        s, y = p - state.params, g - state.grads
        product = s @ y
        keep = (state.step > 0) & _is_kept(form, product, -(s @ state.grads))
        new = (s, y, safe_divide(torch.ones_like(product), product))
        moved, turned, weights = (_pushed(old, row, keep) for old, row in zip(state[3:], new, strict=True))
        start = _inner_scale(moved[0], turned[0]) if scale_init_precond else 1.0
        if scale_init_precond:
            start = torch.where(state.step > 0, start, _first_scale(g, form))
        direction = restore(_split(_two_loops(g, moved, turned, weights, start), leaves))
        updates = tree.map(lambda u, old: None if old is None else u, direction, grads)
        return updates, LbfgsState(state.step + 1, p, g, moved, turned, weights)

    return Optimizer(init, update)


def _filled(leaf: Any, gradient: Any) -> Any:
    if gradient is not None or not has_gradient(leaf):
        return gradient
    return torch.zeros_like(leaf)


def _row(leaves: Leaves, step: Step) -> Tensor:
    rows = [leaf.reshape(-1) for leaf in leaves if isinstance(leaf, Tensor)]
    return torch.cat(rows) if rows else step.new_zeros(0)


def _split(row: Tensor, leaves: Leaves) -> Leaves:
    parts = row.split([leaf.numel() for leaf in leaves]) if leaves else []
    return [part.reshape(leaf.shape).to(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)]


def _pushed(old: Tensor, new: Tensor, keep: Tensor) -> Tensor:
    return torch.where(keep, torch.cat([new.unsqueeze(0), old[:-1]]), old)


def _inner_scale(s: Tensor, y: Tensor) -> Tensor:
    square = y @ y
    return torch.where(square > 0, safe_divide(s @ y, square), 1)


def _first_scale(g: Tensor, form: str) -> Tensor:
    size = g.abs().sum() if form == "torch" else safe_norm(g)
    inverse = torch.where(size > 0, 1 / torch.where(size > 0, size, 1), 1)
    return inverse if form == "scipy" else inverse.clamp(max=1)


def _two_loops(g: Tensor, moved: Tensor, turned: Tensor, weights: Tensor, start: Any) -> Tensor:
    """Multiply by the estimate: Nocedal and Wright 2006, algorithm 7.4. Empty places have weight 0."""
    shares = []
    for s, y, weight in zip(moved, turned, weights, strict=True):
        shares.append(weight * (s @ g))
        g = g - shares[-1] * y
    g = start * g
    for s, y, weight, share in zip(*(part.flip(0) for part in (moved, turned, weights)), shares[::-1], strict=True):
        g = g + (share - weight * (y @ g)) * s
    return g


def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    *,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: Optimizer[Any] | None = None,
    form: Literal["optax", "torch", "scipy"] = "optax",
) -> Optimizer[tuple[Any, ...]]:
    """Step along the quasi-Newton direction as far as a line search says; needs `value=`, `grad=` and `value_fn=`.

    The search is `scale_by_zoom_linesearch(20, initial_guess_strategy="one")`; `identity()` takes whole steps, times
    `learning_rate`. The form "torch" is torch.optim.LBFGS with its strong Wolfe search, a step being one of its
    iterations; the form "scipy" is SciPy's L-BFGS-B without bounds. After a step the state has value and gradient of
    the point reached: see `value_and_grad_from_state`.

    Raises:
        ValueError: `memory_size` is not a whole number, at least 1, `learning_rate` negative, or the form unknown.

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
