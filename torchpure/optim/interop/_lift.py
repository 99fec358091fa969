"""Any optimizer of torch.optim as a pair of pure functions.

Each step builds a torch optimizer for copies of the parameters, loads the state into it, and steps it. Then the new
parameters and the new state are read from it. Building the optimizer costs time at each step, and no transform can
trace it. So prefer the optimizer of this library where there is one.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure import tree
from torchpure._types import Grads, Params, Tree, Updates
from torchpure.errors import TransformError
from torchpure.optim.core import Optimizer, check_given

Make = Callable[..., torch.optim.Optimizer]


class LiftState(NamedTuple):
    """State of `lift`."""

    entries: Tree  # torch's state of each parameter that has a gradient; None before the first step
    groups: Tree  # the options of torch's parameter groups, such as the learning rate


def lift(make: Make, **options: Any) -> Optimizer[LiftState]:
    """Wrap a class of `torch.optim`, or one with the same interface: `lift(torch.optim.RAdam, lr=1e-3)`.

    Step only outside of transforms, on tensors that do not require grad. Optimizers that need a closure, such as
    torch's L-BFGS, are not supported.

    Raises:
        TransformError: a step is inside a transform.

    >>> opt, params = lift(torch.optim.SGD, lr=0.1), {"w": torch.tensor([1.0])}
    >>> opt.step({"w": torch.tensor([2.0])}, opt.init(params), params)[0]
    {'w': tensor([0.8000])}
    """

    def init(params: Params) -> LiftState:
        return LiftState(None, None)

    def update(grads: Grads, state: LiftState, params: Params) -> tuple[Updates, LiftState]:
        if not tree.unwatched():
            raise TransformError(
                f"lift: {getattr(make, '__name__', make)} changes tensors in place, which no transform can follow: "
                "use the optimizer of this library, or step outside of the transform"
            )
        check_given("lift", params)
        leaves, structure = tree.flatten(params)
        grad_leaves = tree.align(structure, params, grads, "lift")
        indices = [number for number, gradient in enumerate(grad_leaves) if gradient is not None]
        copies = [nn.Parameter(leaves[number].detach().clone()) for number in indices]
        optimizer = _load_state(make(copies, **options) if copies else None, state)
        _step(optimizer, copies, [grad_leaves[number] for number in indices])
        updates: list[Any] = [None] * len(leaves)
        for number, parameter in zip(indices, copies, strict=True):
            updates[number] = parameter.detach() - leaves[number]
        return tree.unflatten(structure, updates), _read_state(optimizer, state)

    return Optimizer(init, update)


def _load_state(optimizer: Any, state: LiftState) -> Any:
    if optimizer is not None and state.entries is not None:
        # load_state_dict would cast every float to the dtype of its parameter
        for group, saved in zip(optimizer.param_groups, _copy_tree(state.groups), strict=True):
            group.update(saved)
        leaves = [leaf for group in optimizer.param_groups for leaf in group["params"]]
        optimizer.state.update(zip(leaves, _copy_tree(state.entries), strict=True))
    return optimizer


def _step(optimizer: Any, copies: list[nn.Parameter], grads: Iterable[Tensor]) -> None:
    for parameter, gradient in zip(copies, grads, strict=True):
        parameter.grad = gradient.detach().clone()
    if optimizer is not None:
        with torch.no_grad():
            optimizer.step()


def _read_state(optimizer: Any, state: LiftState) -> LiftState:
    if optimizer is None:
        return state
    saved = optimizer.state_dict()
    entries = [saved["state"].get(number, {}) for number in range(len(saved["param_groups"][0]["params"]))]
    groups = [{name: value for name, value in group.items() if name != "params"} for group in saved["param_groups"]]
    return LiftState(entries, groups)


def _copy_tree(part: Tree) -> Any:
    return tree.map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else copy.deepcopy(leaf), part)
