"""How a formula for one leaf becomes a transformation of trees, of flat sequences, and of chains.

A formula is a pure function of one leaf: `(gradient, parameter, *state leaves) → (update, *new state leaves)`. A
chain of formulas runs leaf by leaf. Where nothing requires grad, the results are written to the old tensors if
`inplace` is set. Where something does, the whole chain is one node of the graph: its backward pass runs the formulas
once more (`_recorded.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._torch import len_torch_function_stack
from torchpure.compat.torchopt import pytree
from torchpure.compat.torchopt.base import GradientTransformation

from ._recorded import recorded

LeafFn = Callable[..., tuple[Any, ...]]  # (gradient, parameter, *state leaves) → (update, *new state leaves)
MISSING_PARAMS = "Parameters are required for weight decay. Call `update(updates, state, params=params)` instead."


class UnsupportedTensors(Exception):  # noqa: N818
    """A kernel does not take these tensors."""


class Formula(NamedTuple):
    """What a transformation does to one leaf."""

    prepare: Callable[[Any], LeafFn]  # from the state: the formula of this step
    fields: tuple[str, ...] = ()  # of the state, those that are trees like the parameters
    advance: Callable[[Any], Any] = lambda state: state  # the state's other fields, after the step
    writes: bool = False  # whether `inplace` puts the update into the gradient
    needs_params: bool = False
    constant: bool = True  # False: it may hold a tensor that requires grad
    # the same for lists of plain tensors without a graph, in few operations: (gradients, parameters, *states) → lists
    kernel: Callable[[Any], LeafFn] | None = None


def make_transformation(init: Callable[[Any], Any], formula: Formula) -> GradientTransformation:
    """Make the pair of a formula. Its `update` has the formula as an attribute, which chains read."""

    def update(updates: Any, state: Any, *, params: Any = None, inplace: bool = True) -> tuple[Any, Any]:
        updates, (new,) = run_formulas([formula], updates, (state,), params, inplace=inplace)
        return updates, new

    update.formula = formula  # pyrefly: ignore[missing-attribute]
    return GradientTransformation(init, update)


def run_formulas(
    formulas: Sequence[Formula], updates: Any, states: Sequence[Any], params: Any, *, inplace: bool
) -> tuple[Any, tuple[Any, ...]]:
    """Run formulas one after another on all leaves that have a gradient."""
    if params is None and any(formula.needs_params for formula in formulas):
        raise AssertionError(MISSING_PARAMS)
    grads, structure = pytree.tree_flatten(updates, none_is_leaf=True)
    weights = _weights(formulas, grads, structure, params, inplace=inplace)
    slots = [
        [structure.flatten_up_to(getattr(state, name)) for name in formula.fields]
        for formula, state in zip(formulas, states, strict=True)
    ]
    active = [index for index, grad in enumerate(grads) if grad is not None]
    leaf_fns = [formula.prepare(state) for formula, state in zip(formulas, states, strict=True)]
    columns = [leaves for fields in slots for leaves in fields]
    rows = [(grads[i], weights[i], *(leaves[i] for leaves in columns)) for i in active]
    results = _apply(formulas, states, leaf_fns, [len(fields) for fields in slots], rows, inplace=inplace)
    outputs = [list(leaves) for leaves in (grads, *columns)]
    for index, row in zip(active, results, strict=True):
        for leaves, value in zip(outputs, row, strict=True):
            leaves[index] = value
    trees = [structure.unflatten(leaves) for leaves in outputs]
    return trees[0], _rebuild(formulas, states, iter(trees[1:]))


def _weights(
    formulas: Sequence[Formula], grads: Sequence[Any], structure: Any, params: Any, *, inplace: bool
) -> Sequence[Any]:
    """Return the parameters, for formulas that use them.

    An update in place follows no graph that its gradient has not.
    """
    if not any(formula.needs_params for formula in formulas):
        return [None] * len(grads)
    leaves = structure.flatten_up_to(params)
    if not inplace:
        return leaves
    return [p if g is None or g.requires_grad else p.detach() for g, p in zip(grads, leaves, strict=True)]


def _rebuild(formulas: Sequence[Formula], states: Sequence[Any], trees: Any) -> tuple[Any, ...]:
    return tuple(
        formula.advance(state)._replace(**{name: next(trees) for name in formula.fields}) if formula.fields else state
        for formula, state in zip(formulas, states, strict=True)
    )


def _apply(
    formulas: Sequence[Formula],
    states: Sequence[Any],
    leaf_fns: Sequence[LeafFn],
    sizes: list[int],
    rows: list[Any],
    *,
    inplace: bool,
) -> list[list[Any]]:
    run = _chained(leaf_fns, sizes)
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for row in rows for x in row):
        simple = tree.unwatched() and not len_torch_function_stack() and all(formula.constant for formula in formulas)
        run_all = _lists_or_leaves(formulas, states, run, sizes)
        return recorded(run, run_all, rows) if simple else [run(*row) for row in rows]
    results = _lists_or_leaves(formulas, states, run, sizes)(rows)
    if not inplace:
        return results
    writes = any(formula.writes for formula in formulas)
    return [
        _write(row, new, writes=writes and _keeps_gradient(formulas)) for row, new in zip(rows, results, strict=True)
    ]


def _lists_or_leaves(
    formulas: Sequence[Formula], states: Sequence[Any], run: Callable[..., list[Any]], sizes: list[int]
) -> Callable[[list[Any]], list[Any]]:
    """Return the chain as a function of all rows: by kernels, if all formulas have one and all tensors are plain."""

    def run_all(rows: list[Any]) -> list[Any]:
        tensors = [value for row in rows for value in row if value is not None]
        if not rows or any(formula.kernel is None for formula in formulas) or not tree.plain(tensors):
            return [run(*row) for row in rows]
        kernels = [formula.kernel(state) for formula, state in zip(formulas, states, strict=True) if formula.kernel]
        try:
            lists = _chained(kernels, sizes)(*(list(column) for column in zip(*rows, strict=True)))
        except UnsupportedTensors:
            return [run(*row) for row in rows]
        return [list(row) for row in zip(*lists, strict=True)]

    return run_all


def _keeps_gradient(formulas: Sequence[Formula]) -> bool:
    """Return whether every formula of the chain writes to the gradient: Adam's and its kin make new tensors."""
    return all(formula.writes for formula in formulas)


def _chained(leaf_fns: Sequence[LeafFn], sizes: list[int]) -> Callable[..., list[Any]]:
    if len(leaf_fns) == 1:
        return lambda grad, param, *state: list(leaf_fns[0](grad, param, *state))

    def run(grad: Any, param: Any, *state: Any) -> list[Any]:
        new: list[Any] = []
        for leaf_fn, size in zip(leaf_fns, sizes, strict=True):
            grad, *mine = leaf_fn(grad, param, *state[:size])
            state = state[size:]
            new += mine
        return [grad, *new]

    return run


def _write(row: tuple[Any, ...], new: list[Any], *, writes: bool) -> list[Any]:
    """Put new values into the old tensors. Counts are new tensors, as in torchopt."""
    grad, _, *old = row
    kept = [o.copy_(n) if o.is_floating_point() or o.is_complex() else n for o, n in zip(old, new[1:], strict=True)]
    return [grad.copy_(new[0]) if writes else new[0], *kept]
