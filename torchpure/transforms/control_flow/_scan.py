"""Loops over slices (as `jax.lax.scan`)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import Closure, Flat, Packed, check_callable, frozen, scan_p, staged
from torchpure.transforms.context import quiet
from torchpure.transforms.engine import describe_function, expose, retry_with_batched_carry
from torchpure.transforms.overrides import overriding
from torchpure.transforms.purity import watched

from ._carry import Carry, as_tensors
from ._scan_rules import scan_flat

Step = Callable[[Any, Any], tuple[Any, Any]]


def scan(
    f: Step,
    init: Tree,
    xs: Tree = None,
    length: int | None = None,
    *,
    reverse: bool = False,
    unroll: int = 1,
    remat: int | None = None,
) -> tuple[Tree, Tree]:
    """Carry a value through `f(carry, x) -> (carry, y)` over slices of `xs`; return the last carry and the stacked `y`.

    Slices are along dimension 0, from the last one if `reverse`; without `xs`, `f` gets None `length` times. Numbers in
    `init` become tensors. In a traced program this is one loop, of `unroll` steps in each round. With `remat`,
    gradients keep the carries of every so many steps only, and run the steps in between again: the square root of the
    length takes the least memory. `f` must be pure; what it captures is followed.

    Law: `scan` and its derivatives equal a Python loop and its derivatives.

    Raises:
        TransformError: `f` does not return a pair, with a carry like the one that it was given; `xs` differ in length.
        StructureError: the carry that it returns has another structure.

    >>> scan(lambda total, x: (total + x, total), torch.tensor(0.0), torch.tensor([1.0, 2.0, 3.0]))
    (tensor(6.), tensor([0., 1., 3.]))
    """
    check_callable("scan", f)
    _check_counts(unroll, remat)
    return run_scan("scan", f, init, xs, length, reverse, unroll, remat)


def run_scan(
    who: str,
    f: Step,
    init: Tree,
    xs: Tree,
    length: int | None,
    reverse: bool = False,
    unroll: int = 1,
    remat: int | None = None,
) -> tuple[Tree, Tree]:
    """Do what `scan` does, under another name in errors."""
    slices, structure = tree.flatten(xs)
    count = _length(who, f, xs, slices, length)
    plain = not staged() and (remat is None or not count or is_dynamo_compiling() or not torch.is_grad_enabled())

    def run(carry: Tree) -> tuple[Tree, Tree]:
        if plain:
            return _python(who, f, carry, slices, structure, count, reverse)
        return _Steps(who, frozen(f), carry, slices, structure).run(count, reverse, unroll, remat)

    watch = watched(who, f, (init, xs))
    with watch.overriding():
        result = retry_with_batched_carry(run, init)
    watch.check()
    return watch.unaliased(result)


def _length(who: str, f: Step, xs: Tree, slices: Sequence[Any], length: Any) -> int:
    if length is not None and (type(length) is not int or length < 0):
        raise TransformError(f"{who}: length must be an int of at least 0, got {tree.describe(length)}")
    for i, leaf in enumerate(slices):
        if not isinstance(leaf, Tensor) or not leaf.ndim:
            raise TransformError(
                f"{who}: {describe_function(f)}: xs at `{tree.paths(xs)[i]}` must be a tensor whose dimension 0 has "
                f"the slices, got {tree.describe(leaf)}. What is the same for all steps can be captured"
            )
    sizes = {leaf.shape[0]: i for i, leaf in reversed(list(enumerate(slices)))}
    if len(sizes) > 1:
        names = tree.paths(xs)
        found = ", ".join(f"{size} at `{names[i]}`" for size, i in sorted(sizes.items(), key=lambda item: item[1]))
        raise TransformError(f"{who}: {describe_function(f)}: xs differ in length: {found}")
    if not sizes and length is None:
        raise TransformError(f"{who}: {describe_function(f)}: without xs the number of steps is unknown: pass length=")
    if sizes and length is not None and length not in sizes:
        raise TransformError(
            f"{who}: {describe_function(f)}: length={length}, but xs have {next(iter(sizes))} slices: leave out length"
        )
    return next(iter(sizes), length or 0)


def _check_counts(unroll: Any, remat: Any) -> None:
    if type(unroll) is not int or unroll < 1:
        raise TransformError(f"scan: unroll must be an int of at least 1, got {tree.describe(unroll)}")
    if remat is not None and (type(remat) is not int or remat < 1):
        raise TransformError(f"scan: remat must be an int of at least 1, or None, got {tree.describe(remat)}")


def _pair(who: str, f: Step, out: Any) -> tuple[Any, Any]:
    if not isinstance(out, tuple) or len(out) != 2:
        raise TransformError(f"{who}: {describe_function(f)} must return (carry, y), got {tree.describe(out)}")
    return out


def _python(
    who: str, f: Step, init: Tree, slices: list[Tensor], structure: Any, count: int, reverse: bool
) -> tuple[Tree, Tree]:
    """Loop in Python, where every transform follows each operation by itself."""
    carry = as_tensors(init)
    if not count:
        return carry, _no_rows(who, f, carry, slices, structure)
    rows = _rows(slices, structure, count, reverse)
    first, checked = carry, None
    carry, y = _pair(who, f, f(carry, next(rows)))
    if (
        not (isinstance(first, Tensor) and isinstance(carry, Tensor))
        or first.dtype != carry.dtype
        or first.shape != carry.shape
    ):
        checked = Carry(who, first)
        carry = checked.put(checked.take(f, carry))
    ys = [y]
    for x in rows:
        out = f(carry, x)
        if type(out) is not tuple or len(out) != 2:
            out = _pair(who, f, out)
        carry, y = out
        ys.append(y)
    if reverse:
        ys.reverse()
    return carry if checked is None or count == 1 else checked.arranged(f, carry), _stacked(who, f, ys)


def _rows(slices: list[Tensor], structure: Any, count: int, reverse: bool) -> Any:
    columns = [reversed(leaf.unbind(0)) if reverse else leaf.unbind(0) for leaf in slices]
    if not columns:
        value = tree.unflatten(structure, [])
        return iter([value] * count)
    if len(columns) == 1 and tree.unflatten(structure, [columns]) is columns:
        return iter(columns[0])
    return (tree.unflatten(structure, row) for row in zip(*columns, strict=True))


def _no_rows(who: str, f: Step, carry: Tree, slices: list[Tensor], structure: Any) -> Tree:
    """Run a step on zeros, for the shapes of what a loop of no steps gives."""
    x = tree.unflatten(structure, [leaf.new_zeros(leaf.shape[1:]) for leaf in slices])
    with quiet(), torch.no_grad():
        _, y = _pair(who, f, f(carry, x))
    return tree.map(lambda leaf: leaf.new_zeros((0, *leaf.shape)), as_tensors(y))


def _stacked(who: str, f: Step, ys: list[Any]) -> Tree:
    first = ys[0]
    if isinstance(first, Tensor):
        return torch.stack(ys)
    if first is None:
        return None
    leaves, structure = tree.flatten(as_tensors(first))
    _check_rows(who, f, first, leaves)
    names = _differing(who, f)
    columns = zip(*(tree.ordered(structure, as_tensors(y), names) for y in ys), strict=True)
    return tree.unflatten(structure, [torch.stack(column) for column in columns])


def _differing(who: str, f: Step) -> str:
    return f"{who}: {describe_function(f)}: the y of one step against that of another"


def _check_rows(who: str, f: Step, y: Tree, leaves: Sequence[Any]) -> None:
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor):
            raise TransformError(
                f"{who}: {describe_function(f)} must return tensors as y, to be stacked: at `{tree.paths(y)[i]}` got "
                f"{tree.describe(leaf)}"
            )


class _Steps:
    """A loop as an operation: its function as one of tensors alone."""

    def __init__(self, who: str, f: Step, init: Tree, slices: list[Tensor], structure: Any) -> None:
        self._who, self._f, self._structure = who, f, structure
        self._carry, self._ys = Carry(who, init), Packed()
        self._inputs = [expose(leaf) for leaf in (*self._carry.tensors, *slices)]

    def step(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Run one step."""
        count = len(self._carry.tensors)
        x = tree.unflatten(self._structure, given[count:])
        carry, y = _pair(self._who, self._f, self._f(self._carry.put(given[:count]), x))
        y = as_tensors(y)
        _check_rows(self._who, self._f, y, tree.leaves(y))
        return (*self._carry.take(self._f, carry), *self._ys.take(y, partial(_differing, self._who, self._f)))

    def run(self, length: int, reverse: bool, unroll: int, remat: int | None) -> tuple[Tree, Tree]:
        """Run all steps."""
        count = len(self._carry.tensors)
        carry, xs = self._inputs[:count], self._inputs[count:]
        rows = [x[0] if length else x.new_zeros(x.shape[1:]) for x in xs]
        closure = Closure(self.step, [*carry, *rows], overriding)
        body = closure.closed(self.step)
        rounds = partial(_rounds, scan_p.run, unroll)
        if remat is None:
            out = rounds(body, carry, xs, closure.consts, length, reverse)
        else:
            out = _rounds(rounds, remat, body, carry, xs, closure.consts, length, reverse)
        return self._carry.put(out[:count]), self._ys.put(out[count:])


def _rounds(
    inner: Callable[..., Any], size: int, body: Flat, carry: Any, xs: Any, consts: Any, length: int, reverse: bool
) -> tuple[Tensor, ...]:
    """Loop over rounds of several steps each, which `inner` runs; what is left over are steps of their own."""
    if size == 1 or not length:
        return scan_flat(body, carry, xs, consts, length, reverse)
    if size >= length and inner == scan_p.run:
        return inner(body, tuple(carry), tuple(xs), tuple(consts), length, reverse)
    size = min(size, length)
    count, over = divmod(length, size)
    split = over if reverse else count * size
    parts = [slice(split, None), slice(0, split)] if reverse else [slice(0, split), slice(split, None)]
    many = [x[parts[0]].reshape(count, size, *x.shape[1:]) for x in xs]
    number, slices = len(carry), len(xs)

    def several(*given: Tensor) -> tuple[Tensor, ...]:
        mine, rows, others = given[:number], given[number : number + slices], given[number + slices :]
        return inner(body, mine, rows, others, size, reverse)

    out = scan_flat(several, carry, many, consts, count, reverse)
    carry, ys = out[:number], [y.flatten(0, 1) for y in out[number:]]
    if over:
        out = scan_flat(body, carry, [x[parts[1]] for x in xs], consts, over, reverse)
        both = zip(out[number:], ys, strict=True) if reverse else zip(ys, out[number:], strict=True)
        carry, ys = out[:number], list(map(torch.cat, both))
    return (*carry, *ys)
