"""States of modules and optimizers: extract, recover, clone, cut from the graph."""

import copy
from collections.abc import Callable
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from . import pytree
from .base import StateGroups
from .typing import Device

__all__ = [
    "ModuleState",
    "extract_state_dict",
    "module_clone",
    "module_detach_",
    "recover_state_dict",
    "stop_gradient",
]

CopyMode: TypeAlias = Literal["reference", "copy", "deepcopy", "ref", "clone", "deepclone"]


class ModuleState(NamedTuple):
    """The tensors of a module, a dict for each of its submodules."""

    params: tuple[dict[str, Any], ...]
    buffers: tuple[dict[str, Any], ...]
    visual_contents: dict[Any, Any] | None = None  # names of the parameters, for `make_dot`
    detach_buffers: bool = False  # whether recovery copies the buffers


def stop_gradient(target: Any) -> None:
    """Detach, in place, the tensors of a ModuleState, a module, a MetaOptimizer or a tree; `requires_grad` stays.

    >>> weight = torch.ones(1, requires_grad=True) * 2
    >>> stop_gradient((weight,))
    >>> weight
    tensor([2.], requires_grad=True)
    """
    if isinstance(target, ModuleState):
        target = (target.params, target.buffers)
    elif isinstance(target, nn.Module):
        target = tuple(target.parameters())
    elif isinstance(target, StateGroups):
        target = target.state_dict()
    elif hasattr(target, "optim_state"):  # a FuncOptimizer: torchopt ignores it
        target = target.optim_state

    def detach_(leaf: Any) -> None:
        if isinstance(leaf, Tensor):
            requires_grad = leaf.requires_grad
            leaf.detach_().requires_grad_(requires_grad)

    pytree.tree_map_(detach_, target)


def _replicate(by: str, device: Device | None) -> Callable[[Tensor], Tensor]:
    """Return how a tensor is copied: not at all, in the graph, or out of it."""
    assert by in ("reference", "copy", "deepcopy", "ref", "clone", "deepclone")
    target = None if device is None else torch.device(device)

    def move(tensor: Tensor) -> Tensor:
        return tensor if target is None else tensor.to(device=target)

    def detached(tensor: Tensor) -> Tensor:
        new = move(tensor.clone()).detach_()
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(new, requires_grad=tensor.requires_grad)
        return new.requires_grad_(tensor.requires_grad)

    if by in ("reference", "ref"):
        return move
    return (lambda tensor: move(tensor.clone())) if by in ("copy", "clone") else detached


def extract_state_dict(
    target: Any,
    *,
    by: CopyMode = "reference",
    device: Device | None = None,
    with_buffers: bool = True,
    detach_buffers: bool = False,
    enable_visual: bool = False,
    visual_prefix: str = "",
) -> Any:
    """Return the tensors of a module as a ModuleState, or the states of a MetaOptimizer.

    `by` says how: the tensors themselves ("reference"), copies that autograd records ("copy"), or copies without a
    graph ("deepcopy").

    Raises:
        RuntimeError: the target is neither.

    >>> state = extract_state_dict(nn.Linear(1, 1))
    >>> sorted(state.params[0])
    ['bias', 'weight']
    """
    replicate = _replicate(by, device)
    if isinstance(target, StateGroups):
        return pytree.tree_map(lambda t: replicate(t) if isinstance(t, Tensor) else t, target.state_dict())
    params, buffers = extract_module_containers(target, with_buffers=with_buffers)
    copy_buffer = _replicate("deepcopy", device) if detach_buffers else replicate
    return ModuleState(
        params=tuple(_copy_tensors(container, replicate) for container in params),
        buffers=tuple(_copy_tensors(container, copy_buffer) for container in buffers),
        visual_contents=_names_in_graph(target, visual_prefix) if enable_visual else None,
        detach_buffers=detach_buffers,
    )


def _copy_tensors(container: dict[str, Any], replicate: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return type(container)((name, replicate(t)) for name, t in container.items() if isinstance(t, Tensor))


def _names_in_graph(module: nn.Module, prefix: str) -> dict[Any, Any]:
    """Map each parameter to its name, or its node of the graph to the name and itself."""
    named = module.named_parameters()
    return dict((p, prefix + name) if p.grad_fn is None else (p.grad_fn, (prefix + name, p)) for name, p in named)


def extract_module_containers(module: Any, with_buffers: bool = True) -> tuple[Any, Any]:
    """Return the dicts in which a module and its submodules hold parameters, and those of buffers.

    Raises:
        RuntimeError: it is no module.
    """
    if not isinstance(module, nn.Module):
        raise RuntimeError(f"Unexpected class of {module}")
    modules = list(module.modules())
    params = tuple(m._parameters for m in modules if m._parameters)
    return params, tuple(m._buffers for m in modules if m._buffers) if with_buffers else ()


def recover_state_dict(target: Any, state: Any) -> None:
    """Put the tensors of a state back, without a copy, into a module or a MetaOptimizer.

    Raises:
        RuntimeError: the target is neither.
    """
    if isinstance(target, StateGroups):
        target.load_state_dict(state)
        return
    params, buffers = extract_module_containers(target, with_buffers=True)
    new_buffers = state.buffers
    if state.detach_buffers:
        new_buffers = pytree.tree_map(_replicate("deepcopy", None), new_buffers)
    for container, new in chain(zip(params, state.params, strict=False), zip(buffers, new_buffers, strict=False)):
        container.update(new)


def module_clone(
    target: Any, *, by: CopyMode = "reference", detach_buffers: bool = False, device: Device | None = None
) -> Any:
    """Clone a module, a MetaOptimizer or a tree. `by` is as in `extract_state_dict`.

    >>> net = nn.Linear(1, 1)
    >>> module_clone(net).weight is net.weight
    True
    """
    replicate = _replicate(by, device)
    if not isinstance(target, nn.Module | StateGroups):
        return pytree.tree_map(replicate, target)
    held = target.state_dict() if isinstance(target, StateGroups) else extract_module_containers(target)
    # deepcopy refuses tensors with a graph: it finds each of them as its own copy
    cloned = copy.deepcopy(target, memo={id(leaf): leaf for leaf in pytree.tree_leaves(held)})
    recover_state_dict(cloned, extract_state_dict(target, by=by, detach_buffers=detach_buffers, device=device))
    return cloned


def module_detach_(target: Any) -> Any:
    """Detach the tensors in place, as `stop_gradient` does, and return the target."""
    stop_gradient(target)
    return target
