"""Derivatives through optimizer steps (Maclaurin et al. 2015, arXiv:1502.03492).

Forward mode: Franceschi et al. 2017, arXiv:1703.01785. Truncation: Shaban et al. 2019, arXiv:1810.10667.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Params, Tree
from torchpure.errors import TransformError
from torchpure.optim import Optimizer
from torchpure.optim.core import check_optimizer
from torchpure.transforms import grad, scan, stop_gradient, value_and_grad
from torchpure.transforms.calls import check_callable

Carry = tuple[Params, Any]
_KNOWN = ("value", "grad", "value_fn")  # what a step can give to an optimizer that asks for more than gradients


class Unrolled(NamedTuple):
    """What `unroll` returns; all of it can be differentiated."""

    params: Params  # after the last step
    opt_state: Any  # after the last step
    losses: Tensor  # of each step, before it; shape (steps,)


def unroll(
    loss: Callable[..., Tensor],
    params: Params,
    optimizer: Optimizer[Any],
    steps: int | None = None,
    batches: tuple[Tree, ...] = (),
    opt_state: Any = None,
    *,
    remat: int | None = None,
    truncate: int | None = None,
    reversible: bool = False,
) -> Unrolled:
    """Make optimizer steps on `loss(params, *batch)`, as a pure function that every transform differentiates.

    Without `batches`, `loss(params)` is the same in all `steps`. Otherwise `batches` has tensors whose dimension 0
    counts the steps. Derivatives reach `params`, `opt_state`, `batches`, the optimizer's numbers, and all that `loss`
    captures. `grad` runs backward through the steps and needs memory for each; `jvp` runs forward with them, and needs
    memory for one.

    `remat=n` keeps every n-th position for the backward pass, and makes the steps in between again: the square root of
    the number of steps takes the least memory. `truncate=n` stops derivatives after each n steps, counted from the end:
    the last parameters depend on the last n steps, and each loss on its window. Inside `jit` it is one compiled loop.

    `reversible=True` keeps the last position only, and undoes the steps on the way back. It serves `sgd` with momentum,
    `adam` and `adamw`. Each step back multiplies rounding errors, by 1 / momentum at least: a hundred steps with
    momentum 0.9 lose five digits. So use double precision, and `remat=n` too for long runs: it begins anew after n.

    Law: `unroll` and its derivatives equal a Python loop of `optimizer.step` and its derivatives.
    Law: `reversible` changes no result, and gradients by rounding errors only.
    Law: `remat` changes no result; `truncate` of at least `steps` changes none either.

    Raises:
        TransformError: neither `steps` nor `batches` is given, they disagree, or a count is no int of at least 1.
        TransformError: `loss` does not return a real tensor of shape ().
        TransformError: `reversible`, and a parameter is complex, or the optimizer's steps cannot be undone.
        TypeError: `optimizer` is no optimizer of this library, or needs a value that `unroll` does not know.

    >>> from torchpure import grad, optim
    >>> def after_two_steps(rate):
    ...     return unroll(lambda x: x**2 / 2, torch.tensor(1.0), optim.sgd(rate), steps=2).params
    >>> grad(after_two_steps)(torch.tensor(0.1))  # the derivative of (1 - rate)²
    tensor(-1.8000)
    """
    check_callable("unroll", loss)
    check_optimizer("unroll", optimizer)
    length = _length(steps, batches)
    for name, count in (("remat", remat), ("truncate", truncate)):
        if count is not None and (type(count) is not int or count < 1):
            raise TransformError(f"unroll: {name} must be an int of at least 1, or None, got {tree.describe(count)}")
    if unknown := [name for name in optimizer.extra if name not in _KNOWN]:
        raise TypeError(f"unroll: the optimizer needs {', '.join(unknown)}, which unroll does not know: use tp.scan")
    carry = (params, optimizer.init(params) if opt_state is None else opt_state)
    if reversible:
        _check_reversible(optimizer, params)
    inverse = partial(_undo, loss, optimizer) if reversible else None
    run = partial(scan, partial(_step, loss, optimizer), remat=remat, inverse=inverse)
    if truncate is None or truncate >= length:
        (params, opt_state), losses = run(carry, batches or None, length)
    else:
        (params, opt_state), losses = _truncated(run, carry, batches, length, truncate)
    return Unrolled(params, opt_state, losses)


def _step(loss: Callable[..., Tensor], optimizer: Optimizer[Any], carry: Carry, batch: Tree) -> tuple[Carry, Tensor]:
    params, opt_state = carry
    value_fn = _loss_of_batch(loss, batch)
    value, grads = value_and_grad(value_fn)(params)
    extra = {"value": value, "grad": grads, "value_fn": value_fn} if optimizer.extra else {}
    return optimizer.step(grads, opt_state, params, **extra), value


def _loss_of_batch(loss: Callable[..., Tensor], batch: Tree) -> Callable[[Params], Tensor]:
    return loss if batch is None else lambda params: loss(params, *batch)


def _undo(loss: Callable[..., Tensor], optimizer: Optimizer[Any], carry: Carry, batch: Tree) -> Carry:
    """Return parameters and state before a step, from those after it."""
    params, opt_state = carry
    assert optimizer.undo is not None
    return optimizer.undo(grad(_loss_of_batch(loss, batch)), opt_state, params)


def _check_reversible(optimizer: Optimizer[Any], params: Params) -> None:
    if optimizer.undo is None:
        raise TransformError(
            f"unroll: reversible=True needs an optimizer whose steps can be undone: sgd with momentum and without "
            f"nesterov, adam, or adamw, each with its usual accumulators, and with b1 and b2 above 0; got {optimizer!r}"
        )
    for path, leaf in zip(tree.paths(params), tree.leaves(params), strict=True):
        if isinstance(leaf, Tensor) and leaf.is_complex():
            raise TransformError(
                f"unroll: reversible=True needs real parameters, got {tree.describe(leaf)} at `{path}`"
            )


def _truncated(
    run: Callable[..., tuple[Carry, Tensor]], carry: Carry, batches: tuple[Tree, ...], length: int, size: int
) -> tuple[Carry, Tensor]:
    """Run a first window of at most `size` steps, then whole windows, each from a constant start."""
    first = (length - 1) % size + 1
    count = (length - first) // size
    carry, losses = run(carry, tree.map(lambda x: x[:first], batches) or None, first)

    def window(carry: Carry, rows: Tree) -> tuple[Carry, Tensor]:
        return run(stop_gradient(carry), rows, size)

    rows = tree.map(lambda x: x[first:].reshape(count, size, *x.shape[1:]), batches) or None
    carry, later = scan(window, carry, rows, count)
    return carry, torch.cat([losses, later.flatten()])


def _length(steps: object, batches: object) -> int:
    if not isinstance(batches, tuple):
        raise TransformError(
            f"unroll: batches must be a tuple of what loss takes after the parameters, got {tree.describe(batches)}"
        )
    leaves = tree.leaves(batches)
    sizes = {leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim}
    if batches and (len(sizes) != 1 or not all(isinstance(leaf, Tensor) and leaf.ndim for leaf in leaves)):
        raise TransformError(
            "unroll: batches must be tensors whose dimension 0 counts the steps, the same number for each, got "
            f"{', '.join(map(tree.describe, leaves))}"
        )
    if steps is None and not batches:
        raise TransformError("unroll: without batches the number of steps is unknown: pass steps=")
    if steps is not None and (type(steps) is not int or steps < 1):
        raise TransformError(f"unroll: steps must be an int of at least 1, got {tree.describe(steps)}")
    if steps is not None and batches and sizes != {steps}:
        raise TransformError(f"unroll: steps={steps}, but batches have {sizes.pop()} rows: leave out steps")
    return steps if isinstance(steps, int) else sizes.pop()
