"""The optimizer that replaces the tensors of a module, in steps that autograd records."""

from typing import Any

import torch
from torch import Tensor, nn

from torchpure.compat.torchopt import pytree
from torchpure.compat.torchopt.base import GradientTransformation, StateGroups, UninitializedState, check_transformation
from torchpure.compat.torchopt.update import apply_updates
from torchpure.compat.torchopt.utils import extract_module_containers

__all__ = ["MetaOptimizer"]


class MetaOptimizer(StateGroups):
    """Replace the parameters of a module by new tensors, which depend on the old ones and on the loss.

    >>> from torchpure.compat.torchopt.alias import sgd
    >>> net = nn.Linear(1, 1, bias=False)
    >>> weight = net.weight
    >>> MetaOptimizer(net, sgd(0.25)).step((net.weight**2).sum())
    >>> torch.autograd.grad(net.weight.sum(), weight)[0]
    tensor([[0.5000]])
    """

    def __init__(self, module: nn.Module, impl: GradientTransformation) -> None:
        """Take the parameters of the module as the first group.

        Raises:
            TypeError: `impl` is no GradientTransformation.
        """
        check_transformation(impl)
        self.impl = impl
        self.param_containers_groups: list[Any] = []
        self.state_groups: list[Any] = []
        self.add_param_group(module)

    def step(self, loss: Tensor) -> None:
        """Make a step along the gradient of the loss, whose graph is kept."""
        for index, (containers, state) in enumerate(zip(self.param_containers_groups, self.state_groups, strict=True)):
            params, structure = pytree.tree_flatten_as_tuple(containers)
            old = self.impl.init(params) if isinstance(state, UninitializedState) else state
            grads = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
            updates, self.state_groups[index] = self.impl.update(grads, old, params=params, inplace=False)
            moved = pytree.tree_unflatten(structure, apply_updates(params, updates, inplace=False))
            for container, new in zip(containers, moved, strict=True):
                container.update(new)

    def add_param_group(self, module: nn.Module) -> None:
        """Add the parameters of a module, with a state of their own."""
        self.param_containers_groups.append(extract_module_containers(module, with_buffers=False)[0])
        self.state_groups.append(UninitializedState())
