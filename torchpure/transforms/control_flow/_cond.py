"""Choices between functions (as `jax.lax.cond` and `jax.lax.switch`)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import Closure, Flat, Packed, check_callable, frozen, staged
from torchpure.transforms.context import differ_over, meetings, only_for
from torchpure.transforms.engine import describe_function, expose, mapped_levels
from torchpure.transforms.overrides import overriding
from torchpure.transforms.purity import watched

from ._carry import alike, as_tensors, described
from ._cond_rules import switch_flat

Branch = Callable[..., Any]


def cond(pred: Tensor | bool, true_fn: Branch, false_fn: Branch, *operands: Tree) -> Tree:
    """Return `true_fn(*operands)` if `pred` holds, else `false_fn(*operands)`: one of them runs.

    Under `vmap`, if members differ in `pred`, both run on all members: a branch sees those that have not chosen it with
    the operands of one that has, so that no infinite derivative there spoils them. What branches capture is followed.
    A branch in which they meet over that axis, in `psum` and its like, sees all members as they are.

    Law: `cond` and its derivatives equal `if` and its derivatives.

    Raises:
        TransformError: `pred` is not a bool of shape (), or the branches differ in shape or dtype.
        StructureError: or in structure.

    >>> cond(torch.tensor(2.0) > 1, torch.sin, torch.cos, torch.tensor(0.0))
    tensor(0.)
    """
    for fn in (true_fn, false_fn):
        check_callable("cond", fn)
    check_pred("cond", pred)
    if _plain_choice(pred):
        return _run("cond", true_fn if pred else false_fn, operands)
    return _chosen("cond", torch.as_tensor(pred).to(torch.int64), (false_fn, true_fn), operands)


def switch(index: Tensor | int, branches: Sequence[Branch], *operands: Tree) -> Tree:
    """Return `branches[index](*operands)`: one of them runs; an index out of range is the nearest in range.

    As `cond` otherwise.

    Raises:
        TransformError: `index` is not an integer of shape (), there are no branches, or they differ in shape or dtype.
        StructureError: or in structure.

    >>> switch(torch.tensor(1), [torch.sin, torch.cos, torch.exp], torch.tensor(0.0))
    tensor(1.)
    """
    if not isinstance(branches, Sequence) or not branches:
        raise TransformError(f"switch: branches must be a list of at least one function, got {tree.describe(branches)}")
    for fn in branches:
        check_callable("switch", fn)
    whole = isinstance(index, Tensor) and not (index.is_floating_point() or index.is_complex())
    if not (type(index) is int or (whole and index.dtype != torch.bool and not index.ndim)):
        raise TransformError(f"switch: index must be an integer of shape (), got {tree.describe(index)}")
    if _plain_choice(index):
        return _run("switch", branches[min(max(int(index), 0), len(branches) - 1)], operands)
    number = torch.as_tensor(index).to(torch.int64).clamp(0, len(branches) - 1)
    return _chosen("switch", number, tuple(branches), operands)


def check_pred(who: str, pred: Any) -> None:
    """Check a condition.

    Raises:
        TransformError: it is not a bool of shape ().
    """
    if isinstance(pred, bool) or (isinstance(pred, Tensor) and pred.dtype == torch.bool and not pred.ndim):
        return
    hint = ". Compare, or reduce with .any() or .all()" if isinstance(pred, Tensor) else ""
    raise TransformError(f"{who}: the condition must be a bool of shape (), got {tree.describe(pred)}{hint}")


def differs(leaf: Tensor) -> bool:
    """Tell whether a tensor has members of some vmap."""
    return bool(mapped_levels(leaf))


def _plain_choice(chooser: Any) -> bool:
    """Tell whether Python can choose."""
    return not isinstance(chooser, Tensor) or is_dynamo_compiling() or not (staged() or differs(chooser))


def _run(who: str, fn: Branch, operands: tuple[Tree, ...]) -> Tree:
    watch = watched(who, fn, operands)
    with watch.overriding():
        out = fn(*operands)
    watch.check()
    return watch.unaliased(as_tensors(out))


def _chosen(who: str, index: Tensor, branches: tuple[Branch, ...], operands: tuple[Tree, ...]) -> Tree:
    branches = tuple(map(frozen, branches))
    packed, outputs = Packed(), Packed()
    tensors = [expose(leaf) for leaf in packed.take(operands)]
    values: dict[int, Tree] = {}  # of each branch, when it first ran

    def runs(number: int) -> Callable[..., tuple[Tensor, ...]]:
        def run(*given: Tensor) -> tuple[Tensor, ...]:
            value = as_tensors(branches[number](*packed.put(given)))
            if number and number not in values:
                _check_same(who, branches[0], values[0], branches[number], value)
            values.setdefault(number, value)
            return outputs.take(value, lambda: f"{who}: {describe_function(branches[number])}")

        return run

    each = [runs(number) for number in range(len(branches))]
    watches = [watched(who, fn, operands) for fn in branches]
    index = expose(index)
    meets = [False] * len(branches)  # over an axis whose members differ in the index
    closure = Closure(_noting(index, each, meets), tensors, overriding)
    out = _results(index, each, meets, tensors, closure)
    for watch in watches:
        watch.check()
    return outputs.put(out)


def _noting(index: Tensor, each: Sequence[Flat], meets: list[bool]) -> Callable[..., list[Sequence[Tensor]]]:
    """Return a function that runs all branches, and notes in which of them members meet that differ in the index."""

    def find(*given: Tensor) -> list[Sequence[Tensor]]:
        results = []
        for number, run in enumerate(each):
            with meetings() as names:
                results.append(run(*given))
            meets[number] = meets[number] or differ_over(index, names)
        return results

    return find


def _results(
    index: Tensor, each: Sequence[Flat], meets: Sequence[bool], tensors: Sequence[Tensor], closure: Closure
) -> Sequence[Tensor]:
    """Run branches without meetings as an operation, and those with one as they are."""
    out: Sequence[Tensor] = ()
    if not all(meets):
        alone = [
            _zeros_like(found) if meet else closure.closed(run)
            for run, meet, found in zip(each, meets, closure.outputs, strict=True)
        ]
        out = switch_flat(index, alone, (*tensors, *closure.consts))
    for number, run in enumerate(each):
        if meets[number]:
            out = _laid_over(out, index == number, run, tensors)
    return out


def _laid_over(out: Sequence[Tensor], chosen: Tensor, run: Flat, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Put what a branch gives in the places of those that choose it: one in which all members meet, as they are."""
    with overriding(), only_for(chosen):
        results = run(*tensors)
    if not out:  # the first branch
        return results
    return [torch.where(chosen, new, old) for new, old in zip(results, out, strict=True)]


def _zeros_like(results: Sequence[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """Return a branch that gives zeros."""
    kinds = [(leaf.shape, leaf.dtype, leaf.device) for leaf in results]
    return lambda *_: tuple(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in kinds)


def _check_same(who: str, first: Branch, wanted: Tree, other: Branch, got: Tree) -> None:
    names = f"{who}: the branches {describe_function(first)} and {describe_function(other)}"
    tree.check_same(wanted, got, who=names)
    leaves, structure = tree.flatten(wanted)
    for i, (one, two) in enumerate(zip(leaves, tree.align(structure, wanted, got, names), strict=True)):
        if not alike(one, two):
            raise TransformError(
                f"{names} must give the same shapes and dtypes: at `{tree.paths(wanted)[i]}` {described(one, two)} "
                f"against {described(two, one)}"
            )
