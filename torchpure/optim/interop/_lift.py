"""Any optimizer of torch, as a pair of pure functions.

Each step makes a torch optimizer of copies of the parameters, gives it its state, lets it step, and takes both out.
That costs its construction every time and cannot be followed by a transform: where this library has the algorithm
itself, that is the one to use.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure import tree
from torchpure._types import Grads, Params, Tree, Updates
from torchpure.errors import TransformError
from torchpure.optim.core import Optimizer

Make = Callable[..., torch.optim.Optimizer]


class LiftState(NamedTuple):
    """State of `lift`."""

    entries: Tree  # for each parameter that moves, what torch keeps for it; None before the first step
    groups: Tree  # what torch keeps in its groups and may change, such as the learning rate


def lift(make: Make, **options: Any) -> Optimizer[LiftState]:
    """Make a class of `torch.optim`, or one with its interface, an optimizer of this library: `lift(RAdam, lr=1e-3)`.

    Steps are outside of transforms only, on tensors that do not require grad; closures, as torch's L-BFGS needs, are
    not called.

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
        leaves, structure = tree.flatten(params)
        given = tree.align(structure, params, grads, "lift")
        moving = [number for number, gradient in enumerate(given) if gradient is not None]
        copies = [nn.Parameter(leaves[number].detach().clone()) for number in moving]
        optimizer = _restored(make(copies, **options) if copies else None, state)
        _step(optimizer, copies, [given[number] for number in moving])
        updates: list[Any] = [None] * len(leaves)
        for number, moved in zip(moving, copies, strict=True):
            updates[number] = moved.detach() - leaves[number]
        return tree.unflatten(structure, updates), _saved(optimizer, state)

    return Optimizer(init, update)


def _restored(optimizer: Any, state: LiftState) -> Any:
    if optimizer is not None and state.entries is not None:
        # load_state_dict would give every float the dtype of its parameter
        for group, saved in zip(optimizer.param_groups, _copied(state.groups), strict=True):
            group.update(saved)
        leaves = [leaf for group in optimizer.param_groups for leaf in group["params"]]
        optimizer.state.update(zip(leaves, _copied(state.entries), strict=True))
    return optimizer


def _step(optimizer: Any, copies: list[nn.Parameter], grads: Iterable[Tensor]) -> None:
    for parameter, gradient in zip(copies, grads, strict=True):
        parameter.grad = gradient.detach().clone()
    if optimizer is not None:
        with torch.no_grad():
            optimizer.step()


def _saved(optimizer: Any, state: LiftState) -> LiftState:
    if optimizer is None:
        return state
    saved = optimizer.state_dict()
    entries = [saved["state"].get(number, {}) for number in range(len(saved["param_groups"][0]["params"]))]
    groups = [{name: value for name, value in group.items() if name != "params"} for group in saved["param_groups"]]
    return LiftState(entries, groups)


def _copied(part: Tree) -> Any:
    return tree.map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else copy.deepcopy(leaf), part)
