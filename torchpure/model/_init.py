"""Initialise a module's parameters and buffers from a key, with PyTorch's distributions.

If there is a factory, it is called again with random numbers from the key. If there is only a module, the
`reset_parameters` of each submodule fills its values.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.nn.utils import parametrize

from torchpure import random
from torchpure._torch import len_torch_dispatch_stack
from torchpure._types import Key, State
from torchpure.errors import ImpureError
from torchpure.model.copies import Pool, Slot, fill
from torchpure.model.draws import call_with_key, construct_with_key, for_each_member, member_flag, per_member
from torchpure.transforms.engine import allow_requires_grad

_UNSET = -98  # an integer that no constructor is expected to leave
_FACTORY_ADVICE = "make the net from a factory, tp.functional(Model, …), whose constructor is called with the key"


def construct(factory: Callable[[], Any], key: Key) -> nn.Module:
    """Call a factory with random numbers from a key.

    Raises:
        ImpureError: it makes a draw that a key cannot answer, or converts a module while a program is traced.
        TypeError: it does not return an nn.Module.
    """
    try:
        with allow_requires_grad():
            module = construct_with_key(factory, key)
    except RuntimeError as error:
        if "Couldn't swap" not in str(error):
            raise
        raise ImpureError(
            "init: the factory converts a module that it has made (`.double()`, `.to(…)`), and torch cannot replace "
            "its parameters while a program is traced: give the layers their dtype and device, or call init outside "
            "of jit"
        ) from error
    if not isinstance(module, nn.Module):
        raise TypeError(f"functional: the factory must return an nn.Module, got {type(module).__name__}")
    return module


def initialise(factory: Callable[[], Any], pool: Pool, key: Key) -> tuple[dict[str, Tensor], State]:
    """Construct a new module from a key and return its values.

    Law: `vmap(init)(keys)[i] == init(keys[i])`.

    Raises:
        ImpureError: the constructor makes a draw that a key cannot answer.
        ParameterError: the constructor made a module with other parameters than the first time.
    """
    random.check_key(key, "init")
    return for_each_member(partial(_initialise, factory, pool), key)


def _initialise(factory: Callable[[], Any], pool: Pool, key: Key) -> tuple[dict[str, Tensor], State]:
    module = construct(factory, key)
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    buffers = {name: value.detach() for name, value in module.named_buffers()}
    return pool.parameters.as_dict(parameters), pool.buffers.as_dict(buffers)


def reinitialise(pool: Pool, key: Key) -> tuple[dict[str, Tensor], State]:
    """Draw new values for a module from a key; buffers that nothing refills keep the module's values.

    Law: `vmap(init)(keys)[i] == init(keys[i])`.

    Raises:
        ImpureError: a submodule has no reset_parameters(), or makes a draw that a key cannot answer.
        TypeError: `key` is not a key.
    """
    random.check_key(key, "init")
    _check_all_refilled(pool)
    return for_each_member(partial(_reinitialise, pool), key)


def _reinitialise(pool: Pool, key: Key) -> tuple[dict[str, Tensor], State]:
    skeleton = pool.make()
    flag = member_flag(key)  # under vmap each member refills its own copy in place
    for slots, values in ((skeleton.parameters, pool.parameters), (skeleton.buffers, pool.buffers)):
        fill(slots, [_copy(value, key, flag) for value in values.tensors])
    with torch.no_grad():
        _refill_modules(skeleton.module, key)
    return _values(skeleton.parameters, pool.parameters.names), _values(skeleton.buffers, pool.buffers.names)


def _values(slots: list[Slot], names: list[str]) -> dict[str, Tensor]:
    found = {number: holder[name].detach() for holder, name, number in slots}
    return {name: found[number] for number, name in enumerate(names)}


def _copy(value: Tensor, key: Key, flag: Tensor | None) -> Tensor:
    return per_member(flag, torch.empty_like(value, device=key.device) if value.is_meta else value.clone())


def _check_all_refilled(pool: Pool) -> None:
    """Check once that every parameter is refilled: otherwise it would silently keep the module's value.

    Raises:
        ImpureError: a parameter is not refilled.
    """
    if pool.init_checked or is_dynamo_compiling() or len_torch_dispatch_stack():
        return
    skeleton = pool.make()
    key = random.key(0)
    for slots, values in ((skeleton.parameters, pool.parameters), (skeleton.buffers, pool.buffers)):
        fill(slots, [_mark_unset(name, value) for name, value in zip(values.names, values.tensors, strict=True)])
    with torch.no_grad():
        _refill_modules(skeleton.module, key)
    after = _values(skeleton.parameters, pool.parameters.names)
    after |= {
        name: value
        for (name, value), old in zip(
            _values(skeleton.buffers, pool.buffers.names).items(), pool.buffers.tensors, strict=True
        )
        if old.is_meta
    }
    for name, value in after.items():
        if (value.isnan() if value.is_floating_point() else value == _UNSET).any():
            raise ImpureError(
                f"init: nothing refills `{name}` of {type(pool.template).__name__}: give its module a "
                f"reset_parameters() that does, or {_FACTORY_ADVICE}"
            )
    pool.init_checked = True


def _mark_unset(name: str, value: Tensor) -> Tensor:
    if value.is_meta:
        value = torch.full_like(value, _UNSET, device="cpu")
    if "parametrizations." in name or not (value.is_floating_point() or value.is_complex()):
        return value.clone()  # a parametrization may fail on NaN
    return torch.full_like(value, torch.nan)


def _refill_modules(module: nn.Module, key: Key) -> None:
    """Refill the values of a private copy, innermost submodules first, as a constructor does."""
    for number, (path, sub) in enumerate(reversed(list(module.named_modules()))):
        refill = getattr(sub, "reset_parameters", None) or getattr(sub, "_reset_parameters", None)
        if refill is not None:
            refill_call = partial(_parametrized_refill, sub) if parametrize.is_parametrized(sub) else refill
            call_with_key(f"init: `{path or '.'}`", refill_call, random.fold_in(key, number))
        elif any(value is not None for value in sub._parameters.values()) and not _is_parametrization(sub):
            raise ImpureError(
                f"init: `{path or '.'}` ({type(sub).__name__}) has parameters of its own and no reset_parameters(): "
                f"give it one, or {_FACTORY_ADVICE}"
            )


def _is_parametrization(module: nn.Module) -> bool:
    return isinstance(module, parametrize.ParametrizationList)


def _parametrized_refill(module: Any) -> None:
    """Refill the module without its parametrizations, then set their originals by `right_inverse`."""
    kind: Any = type(module).__bases__[0]  # torch makes a subclass of the module's own class
    plain: Any = nn.Module.__new__(kind)
    plain.__dict__.update(vars(module))
    plain._modules = {name: sub for name, sub in module._modules.items() if name != "parametrizations"}
    values = {name: torch.empty_like(getattr(module, name)) for name in module.parametrizations}
    plain._parameters = dict(module._parameters) | values
    (getattr(plain, "reset_parameters", None) or plain._reset_parameters)()
    for name, value in values.items():
        chain = module.parametrizations[name]
        for number, original in enumerate(_originals(chain, value)):
            slot = "original" if chain.is_tensor else f"original{number}"
            (chain._parameters if slot in chain._parameters else chain._buffers)[slot] = original


def _originals(chain: Any, value: Any) -> Iterator[Tensor]:
    for parametrization in reversed(list(chain)):
        if not hasattr(parametrization, "right_inverse"):
            raise ImpureError(
                f"init: {type(parametrization).__name__} has no right_inverse(): give it one, or {_FACTORY_ADVICE}"
            )
        value = parametrization.right_inverse(value)
    yield from (value,) if isinstance(value, Tensor) else value
