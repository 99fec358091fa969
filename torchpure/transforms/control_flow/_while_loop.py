"""`while_loop`: a loop as long as a condition holds (as in `jax.lax`)."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import T, Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import ClosureConversion, check_callable, is_tracing, snapshot_cells
from torchpure.transforms.engine import describe_function, expose, functorch, level_kinds, retry_with_batched_carry
from torchpure.transforms.overrides import overriding
from torchpure.transforms.purity import watched

from ._carry import Carry, initial_carry
from ._cond import check_pred, cond, is_batched
from ._scan import run_scan
from ._while_rules import while_flat

Test = Callable[[Any], Any]


def while_loop(cond_fn: Test, body_fn: Callable[[T], T], init: T, *, max_steps: int | None = None) -> T:
    """Apply `body_fn` to a value as long as `cond_fn` is True for it; return the last value.

    Under `vmap` the loop runs until all members are done; a member that is done keeps its value. With `max_steps` the
    loop also ends after that many steps, and every derivative works. Without it, only forward derivatives work in a
    traced program, and where members of a `vmap` take different numbers of steps.

    Numbers in `init` become tensors. The functions must be pure; tensors that they capture are differentiated too.

    Raises:
        TransformError: `cond_fn` does not return a bool of shape (), or `body_fn` changes a shape or dtype.
        TransformError: a backward pass meets a loop of unknown length.
        StructureError: `body_fn` changes the structure.

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
    run = _as_operation if is_tracing() else _python_loop
    result = retry_with_batched_carry(lambda carry: run(cond_fn, body_fn, carry, max_steps), init)
    for watch in watches:
        watch.check()
        result = watch.unaliased(result)
    return result


def _check_condition(cond_fn: Test, value: Tree) -> Any:
    pred = cond_fn(value)
    check_pred(f"while_loop: {describe_function(cond_fn)}", pred)
    return pred


def _python_loop(cond_fn: Test, body_fn: Callable[[Any], Any], init: Tree, max_steps: int | None) -> Tree:
    """Loop in Python; continue as an operation once members of a vmap differ in the condition."""
    in_vmap = not is_dynamo_compiling() and functorch.TransformType.Vmap in level_kinds()
    value = initial_carry("while_loop", init)
    carry, steps = None, 0
    while max_steps is None or steps < max_steps:
        pred = _check_condition(cond_fn, value)
        if in_vmap and isinstance(pred, Tensor) and is_batched(pred):
            value = value if carry is None else carry.reorder_keys(body_fn, value)
            return _as_operation(cond_fn, body_fn, value, None if max_steps is None else max_steps - steps)
        if not pred:
            break
        value = body_fn(value)
        if carry is None:
            carry = Carry("while_loop", init)
            value = carry.unflatten(carry.flatten(body_fn, value))
        steps += 1
    return value if carry is None or steps == 1 else carry.reorder_keys(body_fn, value)


def _as_operation(cond_fn: Test, body_fn: Callable[[Any], Any], init: Tree, max_steps: int | None) -> Tree:
    if max_steps is not None:
        return _as_bounded_scan(cond_fn, body_fn, init, max_steps)
    cond_fn, body_fn = snapshot_cells(cond_fn), snapshot_cells(body_fn)
    carry = Carry("while_loop", init)
    tensors = [expose(leaf) for leaf in carry.tensors]

    def flat_cond(*inputs: Tensor) -> Tensor:
        return torch.as_tensor(_check_condition(cond_fn, carry.unflatten(inputs)))

    def flat_body(*inputs: Tensor) -> tuple[Tensor, ...]:
        return carry.flatten(body_fn, body_fn(carry.unflatten(inputs)))

    closure = ClosureConversion(lambda *inputs: (flat_cond(*inputs), *flat_body(*inputs)), tensors, overriding)
    if closure.suffices:
        return carry.unflatten(closure.outputs[1:])
    test = closure.convert(flat_cond, closure.outputs[:1])
    body = closure.convert(flat_body, closure.outputs[1:])
    return carry.unflatten(while_flat(test, body, tensors, closure.consts, describe_function(body_fn)))


def _as_bounded_scan(cond_fn: Test, body_fn: Callable[[Any], Any], init: Tree, max_steps: int) -> Tree:
    @wraps(body_fn)
    def step(value: Tree, _: None) -> tuple[Tree, None]:
        return cond(_check_condition(cond_fn, value), body_fn, lambda same: same, value), None

    return run_scan("while_loop", step, init, None, max_steps)[0]
