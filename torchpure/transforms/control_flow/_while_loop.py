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
from torchpure.transforms.calls import Closure, check_callable, frozen, staged
from torchpure.transforms.engine import describe_function, expose, functorch, level_kinds, retry_with_batched_carry
from torchpure.transforms.overrides import overriding
from torchpure.transforms.purity import watched

from ._carry import Carry, as_tensors
from ._cond import check_pred, cond, differs
from ._scan import run_scan
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
    with watches[0].overriding():
        run = _operation if staged() else _python
        result = retry_with_batched_carry(lambda carry: run(cond_fn, body_fn, carry, max_steps), init)
    for watch in watches:
        watch.check()
        result = watch.unaliased(result)
    return result


def _goes_on(cond_fn: Test, value: Tree) -> Any:
    pred = cond_fn(value)
    check_pred(f"while_loop: {describe_function(cond_fn)}", pred)
    return pred


def _python(cond_fn: Test, body_fn: Callable[[Any], Any], init: Tree, max_steps: int | None) -> Tree:
    """Loop in Python, until members of a vmap differ in whether they go on."""
    mapped = not is_dynamo_compiling() and functorch.TransformType.Vmap in level_kinds()
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
    tensors = [expose(leaf) for leaf in carry.tensors]

    def test(*given: Tensor) -> Tensor:
        return torch.as_tensor(_goes_on(cond_fn, carry.put(given)))

    def step(*given: Tensor) -> tuple[Tensor, ...]:
        return carry.take(body_fn, body_fn(carry.put(given)))

    closure = Closure(lambda *given: (test(*given), *step(*given)), tensors, overriding)
    name = describe_function(body_fn)
    return carry.put(while_flat(closure.closed(test), closure.closed(step), tensors, closure.consts, name))


def _bounded(cond_fn: Test, body_fn: Callable[[Any], Any], init: Tree, max_steps: int) -> Tree:
    @wraps(body_fn)
    def step(value: Tree, _: None) -> tuple[Tree, None]:
        return cond(_goes_on(cond_fn, value), body_fn, lambda same: same, value), None

    return run_scan("while_loop", step, init, None, max_steps)[0]
