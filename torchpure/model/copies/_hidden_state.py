"""Find out, from bytecode, whether a forward may leave state in a module outside of its buffers.

Parameters and buffers are reset after each call. Other state that a forward sets or changes (a counter, a cache, the
last attention map) stays in the private copy that it ran on, so such a copy is used once only. Like `never_draws`,
the search reads the module's own code; it does not see writes in helper functions that the module calls.
"""

import dis
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from ._never_draws import is_constant, is_write, nested_code, user_classes

_ENTRY_POINTS = ("forward", "__call__", "_call_impl")
_NAMING_OPCODES = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "LOAD_GLOBAL", "LOAD_NAME")
_MUTATING_METHODS = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove",
    "reverse", "setdefault", "sort", "update",
}  # fmt: skip
_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))


def has_hidden_state(module: nn.Module) -> bool:
    """Return whether a forward may leave state in the module that the next forward can read.

    >>> has_hidden_state(nn.Sequential(nn.LSTM(1, 1), nn.BatchNorm1d(1)))
    False
    """
    steps = [
        step for code in _reachable_code(module) for part in nested_code(code) for step in dis.get_instructions(part)
    ]
    buffers = {name for sub in module.modules() for name in sub._buffers}
    if any(step.opname in ("STORE_ATTR", "DELETE_ATTR") and step.argval not in buffers for step in steps):
        return True
    if any(step.opname in _NAMING_OPCODES and step.argval in ("setattr", "__dict__", "__setattr__") for step in steps):
        return True
    return any(map(_has_container, module.modules())) and any(map(_mutates, steps))


def _reachable_code(module: nn.Module) -> Iterator[CodeType]:
    """Yield the code of all hooks, of all forwards, and of the methods that this code names."""
    methods: dict[str, list[FunctionType]] = {}
    todo: list[CodeType] = []
    for sub in module.modules():
        hooks = (*sub._forward_pre_hooks.values(), *sub._forward_hooks.values())
        todo += [hook.__code__ for hook in hooks if isinstance(hook, FunctionType)]
        for kind in user_classes(type(sub)):
            for name, value in vars(kind).items():
                function = getattr(value, "fget", getattr(value, "__func__", value))  # of a property or a static method
                if isinstance(function, FunctionType):
                    methods.setdefault(name, []).append(function)
    names = list(_ENTRY_POINTS)
    for name in names:  # the loop appends to the list
        todo += [method.__code__ for method in methods.pop(name, ())]
        while todo:
            code = todo.pop()
            names += [name for part in nested_code(code) for name in part.co_names if name in methods]
            yield code


def _has_container(module: nn.Module) -> bool:
    """Return whether a user's module has an attribute that can change in place."""
    attributes = user_classes(type(module)) and vars(module).items()
    return any(
        name not in _MODULE_ATTRIBUTES and not callable(value) and _is_mutable(value) for name, value in attributes
    )


def _is_mutable(value: Any) -> bool:
    return not is_constant(value) or hasattr(value, "copy_")


def _mutates(step: dis.Instruction) -> bool:
    in_place = isinstance(step.argval, str) and step.argval.endswith("_") and not step.argval.endswith("__")
    return is_write(step) or (step.opname in _NAMING_OPCODES and (in_place or step.argval in _MUTATING_METHODS))
