"""The optimizer of parameters that are passed in and returned, in steps that autograd records."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from torchpure.compat.torchopt import pytree
from torchpure.compat.torchopt.base import GradientTransformation, UninitializedState, check_transformation
from torchpure.compat.torchopt.update import apply_updates

from ._graph import detach, end_of_graph, only_reaches

__all__ = ["FuncOptimizer"]


class FuncOptimizer:
    """Step parameters that are passed in and returned; the state is kept here.

    Autograd records the steps, so the result can be differentiated with respect to the first parameters. The graph of
    torchopt's grows with every step, without end. Here it begins anew after `recorded_steps` steps: a gradient that
    would have to pass that point is a RuntimeError, never a wrong number. Parameters that the caller has detached,
    and steps in place, begin it anew too.

    >>> from torchpure.compat.torchopt.alias import sgd
    >>> optimizer = FuncOptimizer(sgd(0.25))
    >>> w = torch.tensor(1.0, requires_grad=True)
    >>> optimizer.step(w**2, (w,))[0].detach()
    tensor(0.5000)
    """

    recorded_steps: ClassVar[int] = 256  # set it on an optimizer to keep more, or fewer; 0 records nothing

    def __init__(self, impl: GradientTransformation, *, inplace: bool = False) -> None:
        """Take a functional optimizer, and whether its steps are in place by default.

        Raises:
            TypeError: `impl` is no GradientTransformation.
        """
        check_transformation(impl)
        self.impl = impl
        self.optim_state: Any = UninitializedState()
        self.inplace = bool(inplace)
        self._num_recorded = 0  # steps in the graph of the state
        self._made_state = False  # whether the state is of a step of ours

    def step(self, loss: Tensor, params: Any, inplace: bool | None = None) -> Any:
        """Return the parameters after a step along the gradient of the loss, whose graph is kept."""
        inplace = self.inplace if inplace is None else inplace
        leaves, structure = pytree.tree_flatten(params)
        if isinstance(self.optim_state, UninitializedState):
            self.optim_state = self.impl.init(params)
        recorded = not inplace and self.recorded_steps > 0
        if not recorded:
            self.optim_state = detach(self.optim_state)
        elif all(leaf.grad_fn is None for leaf in leaves):
            self._begin_graph(loss, leaves)
        grads = torch.autograd.grad(loss, leaves, create_graph=recorded, retain_graph=True, allow_unused=True)
        updates, self.optim_state = self.impl.update(
            structure.unflatten(grads), self.optim_state, params=params if recorded else detach(params), inplace=inplace
        )
        self._made_state = True
        if inplace:
            return apply_updates(params, updates, inplace=True)
        return self._bounded(apply_updates(params, updates, inplace=False))

    def _begin_graph(self, loss: Tensor, leaves: list[Tensor]) -> None:
        """Forget the graph of the state if the caller has detached the parameters, and no meta-parameter needs it."""
        if self._made_state and only_reaches(loss, leaves):
            self.optim_state = detach(self.optim_state)
            self._num_recorded = 0

    def _bounded(self, params: Any) -> Any:
        """Return the new parameters; begin the graph anew if it has all the steps that it may have."""
        self._num_recorded += 1
        if self._num_recorded <= self.recorded_steps:
            return params
        self._num_recorded = 0
        self.optim_state = end_of_graph(self.optim_state, self.recorded_steps)
        return end_of_graph(params, self.recorded_steps)

    def state_dict(self) -> Any:
        """Return the state itself, not a copy."""
        return self.optim_state

    def load_state_dict(self, state_dict: Any) -> None:
        """Take this state, without a copy."""
        self.optim_state, self._made_state = state_dict, False
