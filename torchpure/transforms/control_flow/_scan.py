"""`scan`: a loop over slices that carries a value (as `jax.lax.scan`)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import T, Tree, X, Y
from torchpure.errors import TransformError
from torchpure.transforms.calls import (
    ClosureConversion,
    FlatFn,
    Packed,
    check_callable,
    is_tracing,
    scan_p,
    snapshot_cells,
)
from torchpure.transforms.context import suppress_callbacks
from torchpure.transforms.engine import describe_function, expose, refuse_nested, retry_with_batched_carry
from torchpure.transforms.overrides import overriding
from torchpure.transforms.purity import watched

from ._carry import Carry, as_tensors, initial_carry
from ._scan_checks import check_counts, check_inverse, length_of
from ._scan_rules import scan_flat

Step = Callable[[Any, Any], tuple[Any, Any]]


def scan(
    f: Callable[[T, X], tuple[T, Y]],
    init: T,
    xs: X = None,
    length: int | None = None,
    *,
    reverse: bool = False,
    unroll: int = 1,
    remat: int | None = None,
    inverse: Callable[[T, X], T] | None = None,
) -> tuple[T, Y]:
    """Carry a value through `f(carry, x) -> (carry, y)` over slices of `xs`; return the last carry and the stacked `y`.

    Slices are along dimension 0; with `reverse` the loop starts at the last one. Without `xs`, `f` gets None `length`
    times. Numbers in `init` become tensors. In a traced program this is one loop, with `unroll` steps per iteration.
    With `remat=n`, gradients save only every n-th carry and run the steps in between again; the square root of the
    length takes the least memory. `f` must be pure; tensors that it captures are differentiated too.

    If `inverse(f(carry, x)[0], x)` is the carry again, pass it: gradients save the last carry only, and undo the steps
    one by one. Rounding errors grow as the inverse makes them grow; `remat=n` begins anew after n steps.

    Law: `scan` and its derivatives equal a Python loop and its derivatives.
    Law: `inverse` changes no result, and gradients by rounding errors only.

    Raises:
        TransformError: `f` does not return a pair, or changes a shape or dtype of the carry; `xs` differ in length.
        TransformError: `inverse` does not take (carry, x), returns another shape or dtype, or comes with `unroll`.
        StructureError: `f` or `inverse` changes the structure of the carry.

    >>> scan(lambda total, x: (total + x, total), torch.tensor(0.0), torch.tensor([1.0, 2.0, 3.0]))
    (tensor(6.), tensor([0., 1., 3.]))
    """
    check_callable("scan", f)
    check_counts(unroll, remat)
    if inverse is not None:
        check_inverse(inverse, unroll)
    return run_scan("scan", f, init, xs, length, reverse, unroll, remat, inverse)


def run_scan(
    caller: str,
    f: Step,
    init: Tree,
    xs: Tree,
    length: int | None,
    reverse: bool = False,
    unroll: int = 1,
    remat: int | None = None,
    inverse: Callable[[Any, Any], Any] | None = None,
) -> tuple[Tree, Tree]:
    """Do what `scan` does; `caller` is the name in errors."""
    leaves, structure = tree.flatten(xs)
    count = length_of(caller, f, xs, leaves, length)
    use_python = not is_tracing() and (
        (remat is None and inverse is None) or not count or is_dynamo_compiling() or not torch.is_grad_enabled()
    )

    def run(carry: Tree) -> tuple[Tree, Tree]:
        if use_python:
            return _python_loop(caller, f, carry, leaves, structure, count, reverse)
        back = None if inverse is None else snapshot_cells(inverse)
        operation = _ScanOperation(caller, snapshot_cells(f), carry, leaves, structure, back)
        return operation.run(count, reverse, unroll, remat)

    watch = watched(caller, f, (init, xs))
    result = retry_with_batched_carry(run, init)
    watch.check()
    return watch.unaliased(result)


def _check_pair(caller: str, f: Step, out: Any) -> tuple[Any, Any]:
    if not isinstance(out, tuple) or len(out) != 2:
        raise TransformError(f"{caller}: {describe_function(f)} must return (carry, y), got {tree.describe(out)}")
    return out


def _python_loop(
    caller: str, f: Step, init: Tree, leaves: list[Tensor], structure: Any, count: int, reverse: bool
) -> tuple[Tree, Tree]:
    """Loop in Python: transforms handle each operation by itself."""
    carry = initial_carry(caller, init)
    if not count:
        return carry, _empty_ys(caller, f, carry, leaves, structure)
    rows = _iterate_rows(leaves, structure, count, reverse)
    initial, checked = carry, None
    carry, y = _check_pair(caller, f, f(carry, next(rows)))
    if (
        not (isinstance(initial, Tensor) and isinstance(carry, Tensor))
        or initial.dtype != carry.dtype
        or initial.shape != carry.shape
    ):
        checked = Carry(caller, initial)
        carry = checked.unflatten(checked.flatten(f, carry))
    ys = [y]
    for x in rows:
        out = f(carry, x)
        if type(out) is not tuple or len(out) != 2:
            out = _check_pair(caller, f, out)
        carry, y = out
        ys.append(y)
    if reverse:
        ys.reverse()
    return carry if checked is None or count == 1 else checked.reorder_keys(f, carry), _stack_ys(caller, f, ys)


def _iterate_rows(leaves: list[Tensor], structure: Any, count: int, reverse: bool) -> Any:
    columns = [reversed(leaf.unbind(0)) if reverse else leaf.unbind(0) for leaf in leaves]
    if not columns:
        value = tree.unflatten(structure, [])
        return iter([value] * count)
    if len(columns) == 1 and tree.unflatten(structure, [columns]) is columns:
        return iter(columns[0])
    return (tree.unflatten(structure, row) for row in zip(*columns, strict=True))


def _empty_ys(caller: str, f: Step, carry: Tree, leaves: list[Tensor], structure: Any) -> Tree:
    """Run one step on zeros, to get the shapes of `ys` for a loop of length 0."""
    x = tree.unflatten(structure, [leaf.new_zeros(leaf.shape[1:]) for leaf in leaves])
    with suppress_callbacks(), torch.no_grad():
        _, y = _check_pair(caller, f, f(carry, x))
    return tree.map(lambda leaf: leaf.new_zeros((0, *leaf.shape)), as_tensors(y))


def _stack_ys(caller: str, f: Step, ys: list[Any]) -> Tree:
    first = ys[0]
    refuse_nested(caller, f, tree.leaves(first), jagged=True)
    if isinstance(first, Tensor):
        return torch.stack(ys)
    if first is None:
        return None
    leaves, structure = tree.flatten(as_tensors(first))
    _check_ys(caller, f, first, leaves)
    label = _comparison(caller, f)
    columns = zip(*(tree.ordered(structure, as_tensors(y), label) for y in ys), strict=True)
    return tree.unflatten(structure, [torch.stack(column) for column in columns])


def _comparison(caller: str, f: Step) -> str:
    return f"{caller}: {describe_function(f)}: the y of one step against that of another"


def _check_ys(caller: str, f: Step, y: Tree, leaves: Sequence[Any]) -> None:
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor):
            raise TransformError(
                f"{caller}: {describe_function(f)} must return tensors as y, to be stacked: at `{tree.paths(y)[i]}` "
                f"got {tree.describe(leaf)}"
            )


class _ScanOperation:
    """A scan as one operation, with a flat body."""

    def __init__(
        self,
        caller: str,
        f: Step,
        init: Tree,
        leaves: list[Tensor],
        structure: Any,
        inverse: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self._caller, self._f, self._xs_structure, self._inverse = caller, f, structure, inverse
        self._carry, self._ys = Carry(caller, init), Packed()
        self._inputs = [expose(leaf) for leaf in (*self._carry.tensors, *leaves)]

    def step(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run one step on flat tensors."""
        num_carry = len(self._carry.tensors)
        x = tree.unflatten(self._xs_structure, inputs[num_carry:])
        carry, y = _check_pair(self._caller, self._f, self._f(self._carry.unflatten(inputs[:num_carry]), x))
        y = as_tensors(y)
        _check_ys(self._caller, self._f, y, tree.leaves(y))
        return (*self._carry.flatten(self._f, carry), *self._ys.flatten(y, partial(_comparison, self._caller, self._f)))

    def undo(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the carry before a step, from that after it."""
        assert self._inverse is not None
        num_carry = len(self._carry.tensors)
        x = tree.unflatten(self._xs_structure, inputs[num_carry:])
        return (*self._carry.flatten(self._inverse, self._inverse(self._carry.unflatten(inputs[:num_carry]), x)),)

    def step_and_undo(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run one step, and undo it: for the tensors that both capture."""
        num_carry = len(self._carry.tensors)
        out = self.step(*inputs)
        return (*out, *self.undo(*out[:num_carry], *inputs[num_carry:]))

    def run(self, length: int, reverse: bool, unroll: int, remat: int | None) -> tuple[Tree, Tree]:
        """Run all steps."""
        num_carry = len(self._carry.tensors)
        carry, xs = self._inputs[:num_carry], self._inputs[num_carry:]
        rows = [x[0] if length else x.new_zeros(x.shape[1:]) for x in xs]
        closure = ClosureConversion(self.step_and_undo if self._inverse else self.step, [*carry, *rows], overriding)
        outputs, undone = closure.outputs, ()
        if self._inverse:
            outputs, undone = outputs[: len(outputs) - num_carry], outputs[len(outputs) - num_carry :]
        if closure.suffices:
            ys = [y.unsqueeze(0).expand(length, *y.shape) for y in outputs[num_carry:]]
            return self._carry.unflatten(outputs[:num_carry]), self._ys.unflatten(ys)
        body = closure.convert(self.step, outputs)
        unrolled = partial(_nested_scans, scan_p.run, unroll)
        if self._inverse:
            unrolled = partial(scan_flat, inverse=closure.convert(self.undo, undone))
        if remat is None:
            out = unrolled(body, carry, xs, closure.consts, length, reverse)
        else:
            out = _nested_scans(unrolled, remat, body, carry, xs, closure.consts, length, reverse)
        return self._carry.unflatten(out[:num_carry]), self._ys.unflatten(out[num_carry:])


def _nested_scans(
    inner: Callable[..., Any], size: int, body: FlatFn, carry: Any, xs: Any, consts: Any, length: int, reverse: bool
) -> tuple[Tensor, ...]:
    """Scan over groups of `size` steps, each run by `inner`; remaining steps run in a second scan."""
    if size == 1 or not length:
        return scan_flat(body, carry, xs, consts, length, reverse)
    if size >= length and inner == scan_p.run:
        return inner(body, tuple(carry), tuple(xs), tuple(consts), length, reverse)
    size = min(size, length)
    count, num_left = divmod(length, size)
    boundary = num_left if reverse else count * size
    spans = [slice(boundary, None), slice(0, boundary)] if reverse else [slice(0, boundary), slice(boundary, None)]
    reshaped = [x[spans[0]].reshape(count, size, *x.shape[1:]) for x in xs]
    num_carry, num_xs = len(carry), len(xs)

    def inner_scan(*inputs: Tensor) -> tuple[Tensor, ...]:
        inner_carry, rows = inputs[:num_carry], inputs[num_carry : num_carry + num_xs]
        inner_consts = inputs[num_carry + num_xs :]
        return inner(body, inner_carry, rows, inner_consts, size, reverse)

    out = scan_flat(inner_scan, carry, reshaped, consts, count, reverse)
    carry, ys = out[:num_carry], [y.flatten(0, 1) for y in out[num_carry:]]
    if num_left:
        out = scan_flat(body, carry, [x[spans[1]] for x in xs], consts, num_left, reverse)
        halves = zip(out[num_carry:], ys, strict=True) if reverse else zip(ys, out[num_carry:], strict=True)
        carry, ys = out[:num_carry], list(map(torch.cat, halves))
    return (*carry, *ys)
