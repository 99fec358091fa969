"""Loops while a condition holds, over numbers, and over elements (as in `jax.lax`)."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError

from ._bodies import Carry, as_tensors
from ._closure import Closure
from ._cond import check_pred, cond, differs
from ._describe import describe_function
from ._frozen import frozen
from ._levels import functorch
from ._operation import check_callable
from ._primitives import staged
from ._replacing import kinds
from ._scan import run_scan
from ._seen import seen
from ._shared import roomy
from ._starts import Start, starting
from ._vmap import vmap
from ._watch import watched
from ._while_rules import while_flat

Test = Callable[[Any], Any]


def while_loop(cond_fn: Test, body_fn: Callable[[Any], Any], init: Tree, *, max_steps: int | None = None) -> Tree:
    """Apply `body_fn` to a value as long as `cond_fn` holds for it; return the value then.

    Under `vmap` the loop runs until all members are done; those that are keep their value. With `max_steps` it also
    ends after so many, and gradients go through it everywhere; without, in a traced program, or where members differ in
    when they are done, only forward derivatives do.
    Numbers in `init` become tensors. The functions must be pure; what they capture is followed.

    Raises:
        TransformError: `cond_fn` does not return a bool of shape (), `body_fn` returns another shape or dtype, or a
            backward pass meets a loop of unknown length.
        StructureError: `body_fn` returns another structure.

    >>> while_loop(lambda x: x < 100, lambda x: x * 2, torch.tensor(3))
    tensor(192)
    """
    for fn in (cond_fn, body_fn):
        check_callable("while_loop", fn)
    if max_steps is not None and (type(max_steps) is not int or max_steps < 0):
        raise TransformError(
            f"while_loop: max_steps must be an int of at least 0, or None, got {tree.describe(max_steps)}"
        )
    watches = [watched("while_loop", fn, (init,)) for fn in (body_fn, cond_fn)]
    with watches[0].replacing():
        run = _operation if staged() else _python
        result = roomy(lambda carry: run(cond_fn, body_fn, carry, max_steps), init)
    for watch in watches:
        watch.check()
        result = watch.apart(result)
    return result


def _goes_on(cond_fn: Test, value: Tree) -> Any:
    pred = cond_fn(value)
    check_pred(f"while_loop: {describe_function(cond_fn)}", pred)
    return pred


def _python(cond_fn: Test, body_fn: Callable[[Any], Any], init: Tree, max_steps: int | None) -> Tree:
    """Loop in Python, until members of a vmap differ in whether they go on."""
    mapped = not is_dynamo_compiling() and functorch.TransformType.Vmap in kinds()
    value = as_tensors(init)
    carry, steps = None, 0
    while max_steps is None or steps < max_steps:
        pred = _goes_on(cond_fn, value)
        if mapped and isinstance(pred, Tensor) and differs(pred):
            value = value if carry is None else carry.arranged(body_fn, value)
            return _operation(cond_fn, body_fn, value, None if max_steps is None else max_steps - steps)
        if not pred:
            break
        value = body_fn(value)
        if carry is None:
            carry = Carry("while_loop", init)
            value = carry.put(carry.take(body_fn, value))
        steps += 1
    return value if carry is None or steps == 1 else carry.arranged(body_fn, value)


def _operation(cond_fn: Test, body_fn: Callable[[Any], Any], init: Tree, max_steps: int | None) -> Tree:
    if max_steps is not None:
        return _bounded(cond_fn, body_fn, init, max_steps)
    cond_fn, body_fn = frozen(cond_fn), frozen(body_fn)
    carry = Carry("while_loop", init)
    tensors = [seen(leaf) for leaf in carry.tensors]

    def test(*given: Tensor) -> Tensor:
        return torch.as_tensor(_goes_on(cond_fn, carry.put(given)))

    def step(*given: Tensor) -> tuple[Tensor, ...]:
        return carry.take(body_fn, body_fn(carry.put(given)))

    closure = Closure(lambda *given: (test(*given), *step(*given)), tensors)
    name = describe_function(body_fn)
    return carry.put(while_flat(closure.closed(test), closure.closed(step), tensors, closure.consts, name))


def _bounded(cond_fn: Test, body_fn: Callable[[Any], Any], init: Tree, max_steps: int) -> Tree:
    @wraps(body_fn)
    def step(value: Tree, _: None) -> tuple[Tree, None]:
        return cond(_goes_on(cond_fn, value), body_fn, lambda same: same, value), None

    return run_scan("while_loop", step, init, None, max_steps)[0]


def fori_loop(lower: int | Tensor, upper: int | Tensor, body_fn: Callable[[Any, Any], Any], init: Tree) -> Tree:
    """Apply `value = body_fn(i, value)` for each `i` from `lower` up to and without `upper`; return the last value.

    Bounds that are ints make it a `scan`, with every derivative; tensors make it a `while_loop`.

    Raises:
        TransformError: a bound is not an integer of shape (), or `body_fn` returns another shape or dtype.
        StructureError: `body_fn` returns another structure.

    >>> fori_loop(1, 5, lambda i, total: total + i, torch.tensor(0))
    tensor(10)
    """
    check_callable("fori_loop", body_fn)
    for name, bound in (("lower", lower), ("upper", upper)):
        whole = isinstance(bound, Tensor) and bound.dtype in _WHOLE and not bound.ndim
        if type(bound) is not int and not whole:
            raise TransformError(f"fori_loop: {name} must be an integer of shape (), got {tree.describe(bound)}")
    if isinstance(lower, int) and isinstance(upper, int):

        @wraps(body_fn)
        def step(value: Tree, i: Tensor) -> tuple[Tree, None]:
            return body_fn(i, value), None

        device = next((leaf.device for leaf in tree.leaves(init) if isinstance(leaf, Tensor)), None)
        numbers = torch.arange(lower, max(lower, upper), device=device)
        return run_scan("fori_loop", step, init, numbers, None)[0]

    @wraps(body_fn)
    def counted(state: tuple[Tensor, Tree]) -> tuple[Tensor, Tree]:
        return state[0] + 1, body_fn(state[0], state[1])

    start = torch.as_tensor(lower).to(torch.int64)
    return while_loop(lambda state: state[0] < upper, counted, (start, init))[1]


_WHOLE = frozenset({torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8})


def map(f: Callable[[Any], Any], xs: Tree, *, batch_size: int | None = None) -> Tree:
    """Apply `f` to each slice of `xs` along dimension 0, one after another, and stack the results.

    With `batch_size` so many at a time, by `vmap`: the memory of a few, and nearly the speed of all at once.

    Law: `map(f, xs) == vmap(f)(xs)`.

    Raises:
        TransformError: as for `scan`; or `batch_size` is not an int of at least 1.

    >>> map(lambda x: x.sum(), torch.ones(3, 2))
    tensor([2., 2., 2.])
    """
    check_callable("map", f)
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise TransformError(f"map: batch_size must be an int of at least 1, or None, got {tree.describe(batch_size)}")

    sizes = {leaf.shape[0] for leaf in tree.leaves(xs) if isinstance(leaf, Tensor) and leaf.ndim}
    if batch_size is None or len(sizes) != 1 or 0 in sizes:
        return _each(f, xs)
    return _in_batches(f, xs, sizes.pop(), batch_size)


def _each(fn: Callable[..., Any], rows: Tree) -> Tree:
    @wraps(fn)
    def step(_: Any, x: Tree) -> tuple[None, Tree]:
        return None, fn(x)

    return run_scan("map", step, None, rows, None)[1]


def _in_batches(f: Callable[[Any], Any], xs: Tree, size: int, batch_size: int) -> Tree:
    @wraps(f, updated=())
    def member(start: Start, x: Tree) -> Tree:
        with starting(start):
            return f(x)

    @wraps(f, updated=())
    def batch(part: tuple[Start, Tree]) -> Tree:
        return vmap(member, in_dims=(None, 0))(*part)

    whole = size - size % batch_size
    parts = []
    if whole:
        rows = tree.map(lambda x: x[:whole].reshape(-1, batch_size, *x.shape[1:]), xs)
        starts = torch.arange(0, whole, batch_size, device=tree.leaves(rows)[0].device)
        parts.append(tree.map(lambda y: y.flatten(0, 1), _each(batch, (starts, rows))))
    if whole < size:
        parts.append(batch((whole, tree.map(lambda x: x[whole:], xs))))
    return tree.map(lambda *pieces: torch.cat(pieces) if len(pieces) > 1 else pieces[0], *parts)
