"""Whether a module may remember a call, in something that is no buffer.

A pure call forgets all but its result. Parameters and buffers are put back after each call; what else a forward sets
or changes (a counter, a cache, the last attention map) stays in the private copy that it ran on. Such a copy is used
once. As with the proof, the code is read, and what is reached through functions of elsewhere is not seen.
"""

import dis
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from ._never_draws import changes, constant, own_classes, parts

_START = ("forward", "__call__", "_call_impl")
_NAMED = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "LOAD_GLOBAL", "LOAD_NAME")
_MUTATING = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove",
    "reverse", "setdefault", "sort", "update",
}  # fmt: skip
_STANDARD = frozenset(vars(nn.Module()))


def remembers(module: nn.Module) -> bool:
    """Tell whether a forward may leave something in the module that the next one sees.

    >>> remembers(nn.Sequential(nn.LSTM(1, 1), nn.BatchNorm1d(1)))
    False
    """
    steps = [step for code in _reached(module) for part in parts(code) for step in dis.get_instructions(part)]
    buffers = {name for sub in module.modules() for name in sub._buffers}
    if any(step.opname in ("STORE_ATTR", "DELETE_ATTR") and step.argval not in buffers for step in steps):
        return True
    if any(step.opname in _NAMED and step.argval in ("setattr", "__dict__", "__setattr__") for step in steps):
        return True
    return any(map(_has_container, module.modules())) and any(map(_mutates, steps))


def _reached(module: nn.Module) -> Iterator[CodeType]:
    """List the code of the hooks, of the forwards, and of the methods that are named there."""
    own: dict[str, list[FunctionType]] = {}
    todo: list[CodeType] = []
    for sub in module.modules():
        hooks = (*sub._forward_pre_hooks.values(), *sub._forward_hooks.values())
        todo += [hook.__code__ for hook in hooks if isinstance(hook, FunctionType)]
        for kind in own_classes(type(sub)):
            for name, value in vars(kind).items():
                found = getattr(value, "fget", getattr(value, "__func__", value))  # of a property, a static method
                if isinstance(found, FunctionType):
                    own.setdefault(name, []).append(found)
    names = list(_START)
    for name in names:  # grows as it goes
        todo += [function.__code__ for function in own.pop(name, ())]
        while todo:
            code = todo.pop()
            names += [named for part in parts(code) for named in part.co_names if named in own]
            yield code


def _has_container(module: nn.Module) -> bool:
    """Tell whether a module of one's own has an attribute that can change in place."""
    own = own_classes(type(module)) and vars(module).items()
    return any(name not in _STANDARD and not callable(value) and _changeable(value) for name, value in own)


def _changeable(value: Any) -> bool:
    return not constant(value) or hasattr(value, "copy_")


def _mutates(step: dis.Instruction) -> bool:
    in_place = isinstance(step.argval, str) and step.argval.endswith("_") and not step.argval.endswith("__")
    return changes(step) or (step.opname in _NAMED and (in_place or step.argval in _MUTATING))
