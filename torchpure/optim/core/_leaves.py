"""The leaves of optimizers: which of them move, as what the formulas see them, and how results go back.

A formula sees real tensors: a complex leaf as its real and imaginary parts, in a last dimension of 2, and half
precision as float32, so that each result is rounded once. Leaves whose gradient is None it does not see.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Step, Tree
from torchpure.errors import StructureError

_HALF = (torch.bfloat16, torch.float16)
_AS_IT_IS = {torch.float32, torch.float64}
Restore = Callable[..., Tree]


def leafwise(who: str, rule: Callable[..., Any], grads: Grads, states: Sequence[Tree], params: Params) -> Any:
    """Apply a formula to each leaf that has a gradient: `rule(g, *states, p)` gives `(u, *states)`.

    Returns (updates, *new states); without states the rule gives u alone, and this the updates alone. A state keeps
    its dtype; an update has the dtype that its inputs promote to. A state may hold a nest of tensors for each leaf.

    Raises:
        StructureError: a tree is not shaped like params, or a gradient not like its parameter.

    >>> grads, params = {"w": torch.tensor([3.0]), "frozen": None}, {"w": torch.ones(1), "frozen": torch.ones(1)}
    >>> leafwise("halve", lambda g, p: g / 2, grads, (), params)
    {'w': tensor([1.5000]), 'frozen': None}
    """
    columns, restore = active(who, grads, states, params)
    rows = [rule(*row) for row in zip(*columns, strict=True)]
    if not states:
        return restore(rows)
    results = zip(*rows, strict=True) if rows else [()] * (1 + len(states))
    return tuple(restore(list(new), old) for new, old in zip(results, (None, *states), strict=True))


def active(who: str, grads: Grads, states: Sequence[Tree], params: Params) -> tuple[list[list[Any]], Restore]:
    """List the leaves that have a gradient, as columns (grads, *states, params), and how to put results back.

    `restore(values)` makes a tree of updates, None where there is no gradient; `restore(values, state)` returns `state`
    with these values in the place of its active leaves.

    Raises:
        StructureError: a tree is not shaped like params, or a gradient not like its parameter.
    """
    base = grads if params is None else params
    leaves, structure = tree.flatten(base)
    raw = [*(tree.align(structure, base, other, who) for other in (grads, *states)), leaves]
    chosen = [grad is not None for grad in raw[0]]
    _check_shapes(who, raw[0], leaves, base)
    columns = raw if all(chosen) else [_picked(column, chosen) for column in raw]
    dtype = _one_dtype([leaf for column in columns for leaf in column])

    def restore(values: Sequence[Any], old: Tree = None) -> Tree:
        kept = [None] * len(chosen) if old is None else tree.align(structure, base, old, who)
        if dtype is None or _one_dtype(values) is not dtype:
            befores = zip(*columns, strict=True) if old is None else _picked(kept, chosen)
            back = _as_update if old is None else as_before
            values = [back(before, value) for before, value in zip(befores, values, strict=True)]
        filled = iter(values)
        return tree.unflatten(structure, [next(filled) if c else k for c, k in zip(chosen, kept, strict=True)])

    return (columns if dtype is not None else [[_seen(leaf) for leaf in column] for column in columns]), restore


def _one_dtype(leaves: Sequence[Any]) -> torch.dtype | None:
    """Return the one dtype of all leaves, if formulas see it as it is: then no leaf has to be looked at again."""
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        return None
    dtypes = {leaf.dtype for leaf in leaves}
    return dtypes.pop() if len(dtypes) == 1 and dtypes <= _AS_IT_IS else None


def _picked(leaves: list[Any], chosen: list[bool]) -> list[Any]:
    return [leaf for leaf, c in zip(leaves, chosen, strict=True) if c]


def _check_shapes(who: str, grads: list[Any], leaves: list[Any], base: Tree) -> None:
    for number, (leaf, gradient) in enumerate(zip(leaves, grads, strict=True)):
        if gradient is not None and getattr(gradient, "shape", None) != getattr(leaf, "shape", None):
            path, got, wanted = tree.paths(base)[number], tree.describe(gradient), tree.describe(leaf)
            raise StructureError(f"{who}: the gradient at `{path}` is {got}, the parameter {wanted}")


def _seen(leaf: Any) -> Any:
    """Show a leaf of the parameters, or what a state holds for it, as real tensors of at least single precision."""
    if not isinstance(leaf, Tensor):
        return tree.map(_seen, leaf)
    if leaf.is_complex():
        return torch.view_as_real(leaf)
    return leaf.float() if leaf.dtype in _HALF else leaf


def as_before(old: Any, new: Any) -> Any:
    """Give what a formula computed for a leaf the kind and dtype that the old leaf has."""
    if not isinstance(old, Tensor):
        return tree.map(as_before, old, new)
    if old.is_complex() and not new.is_complex():
        new = torch.view_as_complex(new.contiguous())
    return new if new.dtype == old.dtype else new.to(old.dtype)


def _as_update(place: tuple[Any, ...], value: Tensor) -> Tensor:
    """Give an update the dtype of its gradient, promoted by the states that have its shape."""
    gradient = place[0]
    dtype = gradient.dtype
    for other in place[1:]:
        if isinstance(other, Tensor) and other.shape == gradient.shape:
            dtype = torch.promote_types(dtype, other.dtype)
    if gradient.is_complex() and not value.is_complex():
        value = torch.view_as_complex(value.contiguous())
    return value if value.dtype == dtype else value.to(dtype)


def per_leaf(fn: Callable[[Tensor], Any], params: Params) -> Tree:
    """Make a part of a state: `fn(p)` for each leaf that can have a gradient, as formulas see it; None for the others.

    >>> per_leaf(lambda p: p.new_zeros(p.shape[:1]), {"w": torch.ones(2, 3), "count": 3})
    {'w': tensor([0., 0.]), 'count': None}
    """
    return tree.map(lambda leaf: fn(_seen(leaf)) if has_gradient(leaf) else None, params)


def moments(params: Params, dtype: torch.dtype | None = None, value: Any = 0) -> Params:
    """Make one value for each entry of each leaf that can have a gradient, None for the others.

    Of the leaf's dtype, or of `dtype`; of a complex leaf the real and the imaginary part each get the value.
    """

    def filled(leaf: Any) -> Tensor | None:
        if not has_gradient(leaf):
            return None
        kind = dtype.to_complex() if dtype is not None and leaf.is_complex() else dtype
        zeros = torch.zeros_like(leaf, dtype=kind)
        if not isinstance(value, Tensor) and value == 0:
            return zeros
        return as_before(zeros, (torch.view_as_real(zeros) if zeros.is_complex() else zeros) + value)

    return tree.map(filled, params)


def copies(params: Params) -> Params:
    """Copy each leaf that can have a gradient, None for the others: where a run began."""
    return tree.map(lambda leaf: leaf.clone() if has_gradient(leaf) else None, params)


def has_gradient(leaf: Any) -> bool:
    """Tell whether a parameter of this kind can have a gradient."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def count(params: Params) -> Step:
    """Make a step count of zero, on the device of the parameters."""
    # float64, so that powers of it stay exact; a Python int would recompile at every step
    return scalar(0.0, params)


def scalar(value: Any, params: Params, dtype: torch.dtype = torch.float64) -> Tensor:
    """Make a number of a state, shape (), on the device of the parameters."""
    first = next((leaf for leaf in tree.leaves(params) if has_gradient(leaf)), None)
    device = first.device if first is not None else None
    if isinstance(value, Tensor):
        return value.to(device=device, dtype=dtype)
    return torch.full((), value, dtype=dtype, device=device)
