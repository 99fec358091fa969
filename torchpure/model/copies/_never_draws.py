"""Proving, from its code, that a module draws nothing and changes nothing in place.

Most modules cannot: their code names nothing that could. For them no call needs to be watched. What is not understood
(a helper function, a method, a hook, a closure, a call of a value) leaves the module unproven, and then every call is
watched; so a mistake on this side costs time and never hides a draw.
"""

import builtins
import dis
import math
import sys
from collections.abc import Iterator
from functools import cache
from types import BuiltinFunctionType, CodeType, FunctionType, GetSetDescriptorType, MethodDescriptorType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from torchpure._torch import jit_internal, tensor

_DRAWING_WORDS = ("rand", "dropout", "bernoulli", "multinomial", "normal", "uniform", "poisson", "binomial", "cauchy")
_DRAWING_WORDS += ("exponential", "geometric", "gumbel", "fractional", "rrelu", "attention", "seed", "sample", "init")
_DRAWING_WORDS += (
    "lstm",
    "gru",
    "rnn",
    "weight_norm",
    "embedding_bag",
    "bilinear",
    "generator",
    "rng",
    "lowrank",
    "lobpcg",
)
_CALLING_WORDS = ("hook", "backward", "distance", "dispatch", "torch_function", "reinforce")  # they call what they get
_RENORMALISING = ("embedding",)  # with max_norm it changes its weight; more often it is a submodule's name
_LIKE_DRAWS = ("rand_like", "randn_like", "randint_like")
_STANDING_LAYERS = (
    "EmbeddingBag",
    "AdaptiveLogSoftmax",
    "Bilinear",
)  # they draw nothing, but need help under transforms
_DRAWING_LAYERS = (
    *_STANDING_LAYERS,
    "Dropout",
    "RReLU",
    "Fractional",
    "Attention",
    "Transformer",
    "RNN",
    "LSTM",
    "GRU",
)

_SPACES = (Tensor, torch, nn, F, torch.functional, math)
_MODULES = (torch, nn, F, torch.functional, math)
_PYTHON = (tensor.__name__, "torch.functional", "torch.nn.functional", jit_internal.__name__)
_CONSTANTS = (int, float, complex, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
_BUILTINS = {
    "abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "isinstance", "len", "list", "print", "range",
    "repr", "reversed", "round", "set", "slice", "str", "sum", "tuple", "zip",
}  # fmt: skip
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_REFUSED = ("IMPORT_NAME", "IMPORT_STAR", "LOAD_BUILD_CLASS", "LOAD_SUPER_ATTR", "LOAD_CLASSDEREF")
_CHANGING = (
    "STORE_ATTR",
    "DELETE_ATTR",
    "STORE_GLOBAL",
    "DELETE_GLOBAL",
    "STORE_SUBSCR",
    "DELETE_SUBSCR",
    "STORE_SLICE",
)


class _Names(NamedTuple):
    """What an attribute in some forward may mean."""

    values: set[str]  # submodules, tensors and constants of the module and its submodules
    unknown: set[str]  # methods, properties and other values: never harmless


def never_draws(module: nn.Module) -> bool:
    """Tell whether no submodule can draw, nor change a parameter in place; False also when that is not known.

    >>> never_draws(nn.Sequential(nn.Linear(1, 1), nn.Tanh())), never_draws(nn.Dropout())
    (True, False)
    """
    names = _names(module)
    return all(_known(sub, names) for sub in module.modules())


def names_like_draws(module: nn.Module) -> bool:
    """Tell whether a forward names `rand_like` or its kin, which torch.compile traces past every mode."""
    codes = [getattr(type(sub).forward, "__code__", None) for sub in module.modules()]
    return any(name in _LIKE_DRAWS for code in codes if code for part in parts(code) for name in part.co_names)


def _names(module: nn.Module) -> _Names:
    names = _Names(set(), set())
    for sub in module.modules():
        names.values.update(sub._modules, sub._parameters, sub._buffers)
        for space in (vars(sub), *map(vars, own_classes(type(sub)))):
            for name, value in space.items():
                (names.values if constant(value) else names.unknown).add(name)
        for own in (sub._parameters, sub._buffers):
            names.unknown.update(name for name, value in own.items() if not constant(value))
    return names


def constant(value: Any) -> bool:
    """Tell whether a value has no code of its own: subclasses, whose operators might do anything, do not count."""
    if type(value) in (tuple, torch.Size):
        return all(map(constant, value))
    return type(value) in _CONSTANTS or type(value) in (Tensor, Parameter)


def _torchs_own(kind: type) -> bool:
    home = sys.modules.get(kind.__module__)
    return kind.__module__.startswith("torch.nn.modules.") and getattr(home, kind.__name__, None) is kind


def own_classes(kind: type) -> list[type]:
    """List the classes that are the user's, or anyone's but torch.nn's."""
    return [base for base in kind.__mro__ if base not in nn.Module.__mro__ and not _torchs_own(base)]


def _known(module: nn.Module, names: _Names) -> bool:
    kind = type(module)
    if module._forward_hooks or module._forward_pre_hooks or {"forward", "_call_impl"} & vars(module).keys():
        return False
    if any(getattr(kind, name) is not getattr(nn.Module, name) for name in _MACHINERY):
        return False
    defined = {name for own in own_classes(kind) for name, value in vars(own).items() if not constant(value)}
    if defined <= _HARMLESS_DEFINITIONS:
        return _known_layer(module)
    forward = kind.forward
    if not isinstance(forward, FunctionType) or forward.__code__.co_freevars:
        return False
    defaults = (*(forward.__defaults__ or ()), *(forward.__kwdefaults__ or {}).values())
    return all(map(constant, defaults)) and all(
        _harmless(part, forward.__globals__, names) for part in parts(forward.__code__)
    )


_MACHINERY = ("__call__", "_call_impl", "_wrapped_call_impl", "__getattr__", "__getattribute__")
_HARMLESS_DEFINITIONS = {"__init__", "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"}
_HARMLESS_DEFINITIONS |= {"__orig_bases__", "__dict__", "__weakref__"}


def _known_layer(module: nn.Module) -> bool:
    """Tell whether a layer of torch.nn, or a subclass with nothing of its own but __init__, draws nothing."""
    names = [base.__name__ for base in type(module).__mro__ if _torchs_own(base)]
    return (
        not any(word in name for word in _DRAWING_LAYERS for name in names)
        and not any(map(callable, vars(module).values()))  # such as the distance of a loss
        and getattr(module, "max_norm", None) is None  # an embedding with one changes its weight
    )


def parts(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from parts(constant)


def _harmless(code: CodeType, space: dict[str, Any], names: _Names) -> bool:
    if any(isinstance(part, CodeType) and part.co_name not in _COMPREHENSIONS for part in code.co_consts):
        return False
    steps = list(dis.get_instructions(code))
    return not any(map(_changes_or_imports, steps)) and all(
        _known_global(step.argval, space)
        if step.opname in _GLOBAL
        else _known_attribute(step.argval, names)
        if step.opname in _ATTRIBUTE
        else step.opname != "PUSH_NULL" or _calls_an_attribute(steps, number)
        for number, step in enumerate(steps)
    )


def _changes_or_imports(step: dis.Instruction) -> bool:
    return step.opname in _REFUSED or changes(step)


def changes(step: dis.Instruction) -> bool:
    in_place = step.opname == "BINARY_OP" and step.argrepr.endswith("=")
    return in_place or step.opname in _CHANGING


def _calls_an_attribute(steps: list[dis.Instruction], number: int) -> bool:
    """Tell whether what is called has a name that is checked, rather than being any local value."""
    if sys.version_info >= (3, 13):  # the value comes first
        return steps[number - 1].opname in _ATTRIBUTE
    first, second = steps[number + 1 : number + 3]
    return first.opname in _GLOBAL or second.opname in _ATTRIBUTE


def _known_global(name: str, space: dict[str, Any]) -> bool:
    if name in space:
        return any(space[name] is module for module in _MODULES)
    found = getattr(builtins, name, None)
    return name in _BUILTINS or (isinstance(found, type) and issubclass(found, Exception))


def _known_attribute(name: str, names: _Names) -> bool:
    if name in names.unknown or any(word in name.lower() for word in (*_DRAWING_WORDS, *_CALLING_WORDS)):
        return False
    if name in _RENORMALISING and name not in names.values:
        return False
    found = _in_torch(name)
    return all(found) and (bool(found) or name in names.values)


@cache
def _in_torch(name: str) -> list[bool]:
    """Tell for each meaning of a name in torch whether it is an operation or a constant, in place excepted."""
    inert = not name.startswith("_") and not name.endswith("_")
    return [inert and _inert(getattr(space, name)) for space in _SPACES if hasattr(space, name)]


def _inert(value: Any) -> bool:
    if isinstance(value, FunctionType):
        return value.__module__ in _PYTHON
    if any(value is one for one in (*_MODULES, torch.device, torch.Size)):
        return True
    operations = BuiltinFunctionType | MethodDescriptorType | GetSetDescriptorType | property
    return isinstance(value, operations) or constant(value)
