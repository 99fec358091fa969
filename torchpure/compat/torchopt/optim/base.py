"""The optimizer that steps parameters in place, from their `grad`."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from torchpure.compat.torchopt import pytree
from torchpure.compat.torchopt.base import GradientTransformation, StateGroups, UninitializedState, check_transformation
from torchpure.compat.torchopt.update import apply_updates

__all__ = ["Optimizer"]


class Optimizer(StateGroups):
    """Update parameters in place, from their `grad`, with a functional optimizer.

    >>> from torchpure.compat.torchopt.alias import sgd
    >>> weight = torch.tensor(1.0, requires_grad=True)
    >>> optimizer = Optimizer([weight], sgd(0.5))
    >>> (weight**2).backward()
    >>> optimizer.step()
    >>> weight
    tensor(0., requires_grad=True)
    """

    def __init__(self, params: Iterable[Tensor], impl: GradientTransformation) -> None:
        """Take the parameters as the first group.

        Raises:
            TypeError: `impl` is no GradientTransformation.
        """
        check_transformation(impl)
        self.impl = impl
        self.param_groups: list[tuple[Tensor, ...]] = []
        self.param_treespecs: list[Any] = []
        self.state_groups: list[Any] = []
        self.add_param_group(params if isinstance(params, list | tuple) else tuple(params))

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set the gradients to zero, or to None."""
        for param in pytree.tree_leaves(self.param_groups):
            if set_to_none:
                param.grad = None
            elif param.grad is not None:
                if param.grad.grad_fn is not None:
                    param.grad.detach_()
                else:
                    param.grad.requires_grad_(False)
                param.grad.zero_()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Make a step, and return the loss of the closure, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index, (params, state) in enumerate(zip(self.param_groups, self.state_groups, strict=True)):
            old = self.impl.init(params) if isinstance(state, UninitializedState) else state
            grads = pytree.tree_map(lambda param: param.grad, params)
            updates, self.state_groups[index] = self.impl.update(grads, old, params=params, inplace=True)
            self.param_groups[index] = apply_updates(params, updates, inplace=True)
        return loss

    def add_param_group(self, params: Any) -> None:
        """Add a group of parameters, with a state of its own."""
        leaves, structure = pytree.tree_flatten_as_tuple(params)
        self.param_groups.append(leaves)
        self.param_treespecs.append(structure)
        self.state_groups.append(UninitializedState())
