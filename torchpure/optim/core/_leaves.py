"""How update formulas apply to leaves: which leaves, in which dtype, and how results return to the trees.

A formula gets real tensors. A complex leaf becomes its real and imaginary parts, in a last dimension of 2. A leaf of
half precision becomes float32, so that each result is rounded once. Leaves whose gradient is None are skipped.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Grads, Params, Step, Tree
from torchpure.errors import StructureError

from ._missing_params import MissingParameter
from ._misuse import is_differentiable

_HALF = (torch.bfloat16, torch.float16)
_COMPUTE_DTYPES = {torch.float32, torch.float64}
Rebuild = Callable[..., Tree]


def leafwise(
    caller: str, rule: Callable[..., Any], grads: Grads, states: Sequence[Tree], params: Params, *, scalars: int = 0
) -> Any:
    """Apply a formula to each leaf that has a gradient: `rule(g, *states, p)` returns `(u, *states)`.

    Returns (updates, *new states). Without states the rule returns only u, and this function only the updates. A state
    keeps its dtype. An update has the dtype to which its inputs promote. A state may hold a tree of tensors for each
    leaf. The last `scalars` states have one number for each leaf. Without params, a rule that reads p raises.

    Raises:
        StructureError: a tree is not shaped like params, or a gradient or a state not like its parameter.

    >>> grads, params = {"w": torch.tensor([3.0]), "frozen": None}, {"w": torch.ones(1), "frozen": torch.ones(1)}
    >>> leafwise("halve", lambda g, p: g / 2, grads, (), params)
    {'w': tensor([1.5000]), 'frozen': None}
    """
    columns, rebuild = active_leaves(caller, grads, states, params, scalars=scalars)
    rows = [rule(*row) for row in zip(*columns, strict=True)]
    if not states:
        return rebuild(rows)
    results = zip(*rows, strict=True) if rows else [()] * (1 + len(states))
    return tuple(rebuild(list(new), old) for new, old in zip(results, (None, *states), strict=True))


def active_leaves(
    caller: str, grads: Grads, states: Sequence[Tree], params: Params, *, scalars: int = 0
) -> tuple[list[list[Any]], Rebuild]:
    """List the leaves that have a gradient, as columns (grads, *states, params), with a function to rebuild trees.

    `rebuild(values)` returns a tree of updates, with None where there is no gradient. `rebuild(values, state)` returns
    `state` with `values` in place of its active leaves. If the params are None, each p is a `MissingParameter`.

    Raises:
        StructureError: a tree is not shaped like params, or a gradient or a state not like its parameter.
    """
    base = grads if params is None else params
    leaves, structure = tree.flatten(base)
    all_columns = [*(tree.align(structure, base, other, caller) for other in (grads, *states)), leaves]
    has_grad = [grad is not None for grad in all_columns[0]]
    columns = all_columns if all(has_grad) else [_filter_leaves(column, has_grad) for column in all_columns]
    _check_shapes(caller, columns[: len(columns) - 1 - scalars], columns[-1], base, has_grad)
    dtype = _common_compute_dtype([leaf for column in columns for leaf in column])
    if dtype is None:
        _check_complex(caller, columns[0], columns[-1], base, has_grad)

    def rebuild(values: Sequence[Any], old: Tree = None) -> Tree:
        kept = [None] * len(has_grad) if old is None else tree.align(structure, base, old, caller)
        if dtype is None or _common_compute_dtype(values) is not dtype:
            originals = zip(*columns, strict=True) if old is None else _filter_leaves(kept, has_grad)
            cast = _cast_update if old is None else cast_like
            values = [cast(original, value) for original, value in zip(originals, values, strict=True)]
        filled = iter(values)
        return tree.unflatten(structure, [next(filled) if c else k for c, k in zip(has_grad, kept, strict=True)])

    formed = columns if dtype is not None else [[_to_compute_form(leaf) for leaf in column] for column in columns]
    return (formed if params is not None else [*formed[:-1], [MissingParameter(caller)] * len(formed[-1])]), rebuild


def _common_compute_dtype(leaves: Sequence[Any]) -> torch.dtype | None:
    """Return the dtype that all leaves share, if formulas compute in it without a cast; else None."""
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        return None
    dtypes = {leaf.dtype for leaf in leaves}
    return dtypes.pop() if len(dtypes) == 1 and dtypes <= _COMPUTE_DTYPES else None


def _filter_leaves(leaves: list[Any], has_grad: list[bool]) -> list[Any]:
    return [leaf for leaf, c in zip(leaves, has_grad, strict=True) if c]


def _check_shapes(
    caller: str, columns: list[list[Any]], leaves: list[Any], base: Tree, has_grad: Sequence[bool]
) -> None:
    """Check that the gradients, in the first column, and the states have the shapes of their parameters."""
    if not is_dynamo_compiling() and _same_shapes(columns, leaves):
        return
    for number, column in enumerate(columns):
        for index, (leaf, part) in enumerate(zip(leaves, column, strict=True)):
            # a state may have several tensors for each leaf
            fits = part.shape == leaf.shape if isinstance(part, Tensor) else number > 0 and part is not None
            if not (isinstance(leaf, Tensor) and fits):
                path = _filter_leaves(tree.paths(base), list(has_grad))[index]
                _refuse_shape(caller, path, leaf, part, is_gradient=number == 0)


def _same_shapes(columns: list[list[Any]], leaves: list[Any]) -> bool:
    try:
        shapes = [leaf.size() for leaf in leaves]  # an error for NumPy arrays
        return all([part.size() for part in column] == shapes for column in columns)
    except (AttributeError, TypeError):
        return False


def _check_complex(caller: str, grads: list[Any], leaves: list[Any], base: Tree, has_grad: Sequence[bool]) -> None:
    """Check that the gradients of complex parameters are complex, and no others: their real forms would broadcast."""
    for index, (gradient, leaf) in enumerate(zip(grads, leaves, strict=True)):
        if isinstance(leaf, Tensor) and gradient.is_complex() != leaf.is_complex():
            path = _filter_leaves(tree.paths(base), list(has_grad))[index]
            _refuse_shape(caller, path, leaf, gradient, is_gradient=True)


def _refuse_shape(caller: str, path: str, leaf: Any, part: Any, *, is_gradient: bool) -> NoReturn:
    if not isinstance(leaf, Tensor):
        raise StructureError(f"{caller}: wanted a tensor at `{path}`, got {tree.describe(leaf)}")
    name, way_out = ("gradient", "") if is_gradient else ("state", ": make a new state with init(params)")
    got, wanted = tree.describe(part), tree.describe(leaf)
    raise StructureError(f"{caller}: the {name} at `{path}` is {got}, the parameter {wanted}{way_out}")


def _to_compute_form(leaf: Any) -> Any:
    """Convert a leaf, or a state's tree for it, to real tensors of at least single precision."""
    if not isinstance(leaf, Tensor):
        return tree.map(_to_compute_form, leaf)
    if leaf.is_complex():
        return torch.view_as_real(leaf)
    return leaf.float() if leaf.dtype in _HALF else leaf


def cast_like(old: Any, new: Any) -> Any:
    """Cast a formula's result to the dtype of the old leaf, complex or real."""
    if not isinstance(old, Tensor):
        return tree.map(cast_like, old, new)
    if old.is_complex() and not new.is_complex():
        new = torch.view_as_complex(new.contiguous())
    return new if new.dtype == old.dtype else new.to(old.dtype)


def _cast_update(inputs: tuple[Any, ...], value: Tensor) -> Tensor:
    """Cast an update to the dtype of its gradient, promoted with the states that have its shape."""
    gradient = inputs[0]
    dtype = gradient.dtype
    for other in inputs[1:]:
        if isinstance(other, Tensor) and other.shape == gradient.shape:
            dtype = torch.promote_types(dtype, other.dtype)
    if gradient.is_complex() and not value.is_complex():
        value = torch.view_as_complex(value.contiguous())
    return value if value.dtype == dtype else value.to(dtype)


def init_per_leaf(fn: Callable[[Tensor], Any], params: Params, dtype: torch.dtype | None = None) -> Tree:
    """Make a part of a state: `fn(p)` for each differentiable leaf, None for the others.

    `fn` gets the leaf in the form that formulas get, or cast to the dtype `dtype`.

    >>> init_per_leaf(lambda p: p.new_zeros(p.shape[:1]), {"w": torch.ones(2, 3), "count": 3})
    {'w': tensor([0., 0.]), 'count': None}
    """

    def made(leaf: Any) -> Any:
        if not is_differentiable(leaf):
            return None
        formed = _to_compute_form(leaf)
        return fn(formed if dtype is None else formed.to(dtype))

    return tree.map(made, params)


def init_moments(params: Params, dtype: torch.dtype | None = None, value: Any = 0) -> Params:
    """Make an accumulator filled with `value` for each differentiable leaf, None for the others.

    It has the shape of the leaf and the dtype `dtype`: by default that of the leaf, but float32 for a leaf of half
    precision, where a running mean would stand still. For a complex leaf, both parts are `value`.

    >>> init_moments(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """

    def filled(leaf: Any) -> Tensor | None:
        if not is_differentiable(leaf):
            return None
        zeros = torch.zeros_like(leaf, dtype=accumulator_dtype_of(leaf, dtype))
        if not isinstance(value, Tensor) and value == 0:
            return zeros
        return cast_like(zeros, (torch.view_as_real(zeros) if zeros.is_complex() else zeros) + value)

    return tree.map(filled, params)


def accumulator_dtype_of(leaf: Tensor, dtype: torch.dtype | None = None) -> torch.dtype:
    """Return the dtype of an accumulator for a leaf: `dtype`, or by default float32 for half precision."""
    if dtype is None:
        return torch.float32 if leaf.dtype in _HALF else leaf.dtype
    return dtype.to_complex() if leaf.is_complex() else dtype


def zero_grads(params: Params) -> Params:
    """Make a gradient of zeros for each differentiable leaf, None for the others. Each has the dtype of its leaf."""
    return tree.map(lambda leaf: torch.zeros_like(leaf) if is_differentiable(leaf) else None, params)


def copy_params(params: Params) -> Params:
    """Copy each differentiable leaf, None for the others: the parameters at the start of a run."""
    return tree.map(lambda leaf: leaf.clone() if is_differentiable(leaf) else None, params)


def init_average(params: Params, dtype: torch.dtype | None = None) -> Params:
    """Copy each differentiable leaf to the dtype of an accumulator, None for the others: an average of parameters."""
    return tree.map(
        lambda leaf: leaf.to(accumulator_dtype_of(leaf, dtype), copy=True) if is_differentiable(leaf) else None, params
    )


def init_step_count(params: Params) -> Step:
    """Make a step count of 0 on the device of the parameters."""
    # float64, so that powers of the step are exact; a Python int would recompile at every step
    return init_scalar(0.0, params)


def init_scalar(value: Any, params: Params, dtype: torch.dtype = torch.float64) -> Tensor:
    """Make a scalar of a state, shape (), on the device of the parameters."""
    first = next((leaf for leaf in tree.leaves(params) if is_differentiable(leaf)), None)
    device = first.device if first is not None else None
    if isinstance(value, Tensor):
        return value.to(device=device, dtype=dtype)
    return torch.full((), value, dtype=dtype, device=device)
