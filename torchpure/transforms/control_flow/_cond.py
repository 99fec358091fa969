"""`cond` and `switch`: one of several functions runs (as in `jax.lax`)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import T, Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import ClosureConversion, FlatFn, Packed, check_callable, is_tracing, snapshot_cells
from torchpure.transforms.context import active_where, collectives_used, varies_over
from torchpure.transforms.engine import describe_function, expose, mapped_levels
from torchpure.transforms.overrides import overriding
from torchpure.transforms.purity import watched

from ._carry import as_tensors, describe_leaf, matches
from ._cond_rules import switch_flat

Branch = Callable[..., Any]


def cond(pred: Tensor | bool, true_fn: Callable[..., T], false_fn: Callable[..., T], *operands: Tree) -> T:
    """Return `true_fn(*operands)` if `pred` is True, else `false_fn(*operands)`: only one of them runs.

    Under `vmap`, if members differ in `pred`, both branches run on all members. A member that does not choose a branch
    runs it with the operands of one that does, so an infinite derivative at its own operands does no harm. A branch
    that uses a collective such as `psum` over that axis gets the operands of each member instead. Tensors that branches
    capture are differentiated too.

    Law: `cond` and its derivatives equal `if` and its derivatives.

    Raises:
        TransformError: `pred` is not a bool of shape (), or the branches return different shapes or dtypes.
        StructureError: the branches return different structures.

    >>> cond(torch.tensor(2.0) > 1, torch.sin, torch.cos, torch.tensor(0.0))
    tensor(0.)
    """
    for fn in (true_fn, false_fn):
        check_callable("cond", fn)
    check_pred("cond", pred)
    if _python_can_choose(pred):
        return _run_branch("cond", true_fn if pred else false_fn, operands)
    return _choose("cond", torch.as_tensor(pred).to(torch.int64), (false_fn, true_fn), operands)


def switch(index: Tensor | int, branches: Sequence[Callable[..., T]], *operands: Tree) -> T:
    """Return `branches[index](*operands)`: only one branch runs; an index out of range is clamped.

    Under transforms it behaves as `cond`.

    Raises:
        TransformError: `index` is not an integer of shape (), or there are no branches.
        TransformError: the branches return different shapes or dtypes.
        StructureError: the branches return different structures.

    >>> switch(torch.tensor(1), [torch.sin, torch.cos, torch.exp], torch.tensor(0.0))
    tensor(1.)
    """
    if not isinstance(branches, Sequence) or not branches:
        raise TransformError(f"switch: branches must be a list of at least one function, got {tree.describe(branches)}")
    for fn in branches:
        check_callable("switch", fn)
    is_integer = isinstance(index, Tensor) and not (index.is_floating_point() or index.is_complex())
    if not (type(index) is int or (is_integer and index.dtype != torch.bool and not index.ndim)):
        raise TransformError(f"switch: index must be an integer of shape (), got {tree.describe(index)}")
    if _python_can_choose(index):
        return _run_branch("switch", branches[min(max(int(index), 0), len(branches) - 1)], operands)
    number = torch.as_tensor(index).to(torch.int64).clamp(0, len(branches) - 1)
    return _choose("switch", number, tuple(branches), operands)


def check_pred(caller: str, pred: Any) -> None:
    """Check that a condition is a bool of shape ().

    Raises:
        TransformError: it is not a bool of shape ().
    """
    if isinstance(pred, bool) or (isinstance(pred, Tensor) and pred.dtype == torch.bool and not pred.ndim):
        return
    hint = ". Compare, or reduce with .any() or .all()" if isinstance(pred, Tensor) else ""
    raise TransformError(f"{caller}: the condition must be a bool of shape (), got {tree.describe(pred)}{hint}")


def is_batched(leaf: Tensor) -> bool:
    """Tell whether some vmap batches a tensor."""
    return bool(mapped_levels(leaf))


def _python_can_choose(chooser: Any) -> bool:
    """Tell whether a Python `if` can choose the branch."""
    return not isinstance(chooser, Tensor) or is_dynamo_compiling() or not (is_tracing() or is_batched(chooser))


def _run_branch(caller: str, fn: Branch, operands: tuple[Tree, ...]) -> Tree:
    watch = watched(caller, fn, operands)
    out = fn(*operands)
    watch.check()
    return watch.unaliased(as_tensors(out))


def _choose(caller: str, index: Tensor, branches: tuple[Branch, ...], operands: tuple[Tree, ...]) -> Tree:
    branches = tuple(map(snapshot_cells, branches))
    packed, outputs = Packed(), Packed()
    tensors = [expose(leaf) for leaf in packed.flatten(operands)]
    values: dict[int, Tree] = {}  # the first result of each branch

    def flat_branch(number: int) -> Callable[..., tuple[Tensor, ...]]:
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            value = as_tensors(branches[number](*packed.unflatten(inputs)))
            if number and number not in values:
                _check_same_results(caller, branches[0], values[0], branches[number], value)
            values.setdefault(number, value)
            return outputs.flatten(value, lambda: f"{caller}: {describe_function(branches[number])}")

        return run

    flat_branches = [flat_branch(number) for number in range(len(branches))]
    watches = [watched(caller, fn, operands) for fn in branches]
    index = expose(index)
    has_collective = [False] * len(branches)  # over an axis whose members differ in the index
    closure = ClosureConversion(_recording_collectives(index, flat_branches, has_collective), tensors, overriding)
    if closure.suffices:
        out = closure.outputs[0]
    else:
        out = _run_branches(index, flat_branches, has_collective, tensors, closure)
    for watch in watches:
        watch.check()
    return outputs.unflatten(out)


def _recording_collectives(
    index: Tensor, flat_branches: Sequence[FlatFn], has_collective: list[bool]
) -> Callable[..., list[Sequence[Tensor]]]:
    """Return a function that runs all branches, and records which use a collective over an axis of the index."""

    def find(*inputs: Tensor) -> list[Sequence[Tensor]]:
        results = []
        for number, run in enumerate(flat_branches):
            with collectives_used() as axes:
                results.append(run(*inputs))
            has_collective[number] = has_collective[number] or varies_over(index, axes)
        return results

    return find


def _run_branches(
    index: Tensor,
    flat_branches: Sequence[FlatFn],
    has_collective: Sequence[bool],
    tensors: Sequence[Tensor],
    closure: ClosureConversion,
) -> Sequence[Tensor]:
    """Run branches without collectives as one operation, and each branch with one directly on all members."""
    out: Sequence[Tensor] = ()
    if not all(has_collective):
        operation_branches = [
            _zero_branch(example) if collective else closure.convert(run, example)
            for run, collective, example in zip(flat_branches, has_collective, closure.outputs, strict=True)
        ]
        out = switch_flat(index, operation_branches, (*tensors, *closure.consts))
    for number, run in enumerate(flat_branches):
        if has_collective[number]:
            out = _run_unsubstituted(out, index == number, run, tensors)
    return out


def _run_unsubstituted(out: Sequence[Tensor], mask: Tensor, run: FlatFn, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Run a branch on all members, with their own operands; keep its results for members that choose it."""
    with overriding(), active_where(mask):
        results = run(*tensors)
    if not out:  # the first branch
        return results
    return [torch.where(mask, new, old) for new, old in zip(results, out, strict=True)]


def _zero_branch(results: Sequence[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """Return a branch that returns zeros like these results."""
    templates = [(leaf.shape, leaf.dtype, leaf.device) for leaf in results]
    return lambda *_: tuple(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in templates)


def _check_same_results(caller: str, first: Branch, expected: Tree, other: Branch, got: Tree) -> None:
    label = f"{caller}: the branches {describe_function(first)} and {describe_function(other)}"
    tree.check_same(expected, got, caller=label)
    leaves, structure = tree.flatten(expected)
    for i, (expected_leaf, got_leaf) in enumerate(
        zip(leaves, tree.align(structure, expected, got, label), strict=True)
    ):
        if not matches(expected_leaf, got_leaf):
            raise TransformError(
                f"{label} must give the same shapes and dtypes: at `{tree.paths(expected)[i]}` "
                f"{describe_leaf(expected_leaf, got_leaf)} against {describe_leaf(got_leaf, expected_leaf)}"
            )
