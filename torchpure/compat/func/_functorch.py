"""functorch's functional modules: a module without its parameters, and the parameters as a tuple."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


class FunctionalModule(nn.Module):
    """A module that takes its parameters first: `func(params, *inputs)`."""

    def __init__(
        self, stateless_model: nn.Module, param_names: tuple[str, ...], names_map: dict[str, list[str]]
    ) -> None:
        """Keep a module, the names of its parameters, and all names of each (several, if it is shared)."""
        super().__init__()
        self.stateless_model = stateless_model
        self.param_names = param_names
        self.names_map = names_map

    def forward(self, params: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        """Call the module with these parameters."""
        given = dict(zip(self.param_names, params, strict=True))
        return functional_call(self.stateless_model, given, args, kwargs)


class FunctionalModuleWithBuffers(nn.Module):
    """A module that takes its parameters and buffers first: `func(params, buffers, *inputs)`.

    A module that changes a buffer, such as a running mean, changes the tensor that it was given.
    """

    def __init__(
        self,
        stateless_model: nn.Module,
        param_names: tuple[str, ...],
        buffer_names: tuple[str, ...],
        param_names_map: dict[str, list[str]],
        buffer_names_map: dict[str, list[str]],
    ) -> None:
        """Keep a module, and the names of its parameters and buffers."""
        super().__init__()
        self.stateless_model = stateless_model
        self.param_names, self.buffer_names = param_names, buffer_names
        self.all_names_map = {**param_names_map, **buffer_names_map}

    def forward(self, params: Sequence[Tensor], buffers: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        """Call the module with these parameters and buffers."""
        given = dict(zip(self.param_names, params, strict=True)) | dict(zip(self.buffer_names, buffers, strict=True))
        return functional_call(self.stateless_model, given, args, kwargs)


def make_functional(
    model: nn.Module, disable_autograd_tracking: bool = False
) -> tuple[FunctionalModule, tuple[Tensor, ...]]:
    """Return a function of the parameters, and copies of the parameters.

    Raises:
        RuntimeError: the module has buffers.

    >>> func, params = make_functional(nn.Linear(2, 1))
    >>> func(params, torch.ones(3, 2)).shape
    torch.Size([3, 1])
    """
    if any(True for _ in model.buffers()):
        raise RuntimeError(
            "make_functional(model): `model` has buffers. Please use make_functional_with_buffers(model) instead."
        )
    own = copy.deepcopy(model)
    params, names = _named(own.named_parameters(remove_duplicate=False), disable_autograd_tracking)
    return FunctionalModule(own, tuple(names), names), params


def make_functional_with_buffers(
    model: nn.Module, disable_autograd_tracking: bool = False
) -> tuple[FunctionalModuleWithBuffers, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return a function of the parameters and buffers, and copies of both.

    >>> func, params, buffers = make_functional_with_buffers(nn.BatchNorm1d(2))
    >>> [tuple(buffer.shape) for buffer in buffers]
    [(2,), (2,), ()]
    """
    own = copy.deepcopy(model)
    params, names = _named(own.named_parameters(remove_duplicate=False), disable_autograd_tracking)
    buffers, buffer_names = _named(own.named_buffers(remove_duplicate=False), False)
    made = FunctionalModuleWithBuffers(own, tuple(names), tuple(buffer_names), names, buffer_names)
    return made, params, buffers


def _named(found: Any, frozen: bool) -> tuple[tuple[Tensor, ...], dict[str, list[str]]]:
    """Return each tensor once, and all its names by the first one."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, leaf in found:
        tensors[id(leaf)] = leaf.requires_grad_(False) if frozen else leaf
        names.setdefault(id(leaf), []).append(name)
    return tuple(tensors.values()), {shared[0]: shared for shared in names.values()}


def combine_state_for_ensemble(
    models: Sequence[nn.Module],
) -> tuple[FunctionalModuleWithBuffers, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return a function of one model's state, and the states of all models, stacked.

    Raises:
        RuntimeError: there is no model, or models differ in class or mode.

    >>> func, params, buffers = combine_state_for_ensemble([nn.Linear(2, 1) for _ in range(4)])
    >>> [tuple(leaf.shape) for leaf in params]
    [(4, 1, 2), (4, 1)]
    """
    if not models:
        raise RuntimeError("combine_state_for_ensemble: wanted at least one model, got 0")
    if len({model.training for model in models}) > 1:
        raise RuntimeError("combine_state_for_ensemble: wanted models in the same mode, training or evaluation")
    if len({type(model) for model in models}) > 1:
        raise RuntimeError("combine_state_for_ensemble: wanted models of the same class")
    functions, params, buffers = zip(*map(make_functional_with_buffers, models), strict=True)
    return functions[0], _stacked(params), _stacked(buffers)


def _stacked(states: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(leaves).detach() for leaves in zip(*states, strict=True))
