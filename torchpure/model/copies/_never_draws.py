"""Prove, from bytecode, that a module draws no random numbers and changes nothing in place.

Most modules pass: their code names only harmless operations, and then calls need no guard. Code that the proof does
not understand (a helper function, a method, a hook, a closure, a call of a value) fails, and then every call is
guarded. So an incomplete proof costs time, but never hides a draw.
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
_CALLING_WORDS = (
    "hook",
    "backward",
    "distance",
    "dispatch",
    "torch_function",
    "reinforce",
)  # they call a function that they are given
_RENORMALISING = ("embedding",)  # with max_norm it changes its weight; most often the name is a submodule's
_RAND_LIKE = ("rand_like", "randn_like", "randint_like")
_OVERRIDDEN_LAYERS = (
    "EmbeddingBag",
    "AdaptiveLogSoftmax",
    "Bilinear",
)  # they draw nothing, but transforms must override them
_DRAWING_LAYERS = (
    *_OVERRIDDEN_LAYERS,
    "Dropout",
    "RReLU",
    "Fractional",
    "Attention",
    "Transformer",
    "RNN",
    "LSTM",
    "GRU",
)

_NAMESPACES = (Tensor, torch, nn, F, torch.functional, math)
_TORCH_MODULES = (torch, nn, F, torch.functional, math)
_PYTHON_MODULES = (tensor.__name__, "torch.functional", "torch.nn.functional", jit_internal.__name__)
_CONSTANT_TYPES = (
    int,
    float,
    complex,
    bool,
    str,
    type(None),
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
)
_BUILTINS = {
    "abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "isinstance", "len", "list", "print", "range",
    "repr", "reversed", "round", "set", "slice", "str", "sum", "tuple", "zip",
}  # fmt: skip
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
_LOAD_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
_LOAD_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
# Opcodes of Python 3.11 to 3.13 that read, build, compare and jump. An opcode that is neither here nor above leaves
# the module unproven. So does a new opcode of a later Python, until somebody has read what it does.
_HARMLESS_OPCODES = frozenset({
    "BINARY_OP", "BINARY_SLICE", "BINARY_SUBSCR", "BUILD_CONST_KEY_MAP", "BUILD_LIST", "BUILD_MAP", "BUILD_SET",
    "BUILD_SLICE", "BUILD_STRING", "BUILD_TUPLE", "CACHE", "CALL", "CALL_FUNCTION_EX", "CALL_INTRINSIC_1", "CALL_KW",
    "CHECK_EXC_MATCH", "COMPARE_OP", "CONTAINS_OP", "CONVERT_VALUE", "COPY", "COPY_FREE_VARS", "DELETE_FAST",
    "DICT_MERGE", "DICT_UPDATE", "END_FOR", "EXTENDED_ARG", "FORMAT_SIMPLE", "FORMAT_VALUE", "FORMAT_WITH_SPEC",
    "FOR_ITER", "GET_ITER", "GET_LEN", "IS_OP", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_FORWARD",
    "JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP", "KW_NAMES", "LIST_APPEND", "LIST_EXTEND", "LIST_TO_TUPLE",
    "LOAD_ASSERTION_ERROR", "LOAD_CLOSURE", "LOAD_CONST", "LOAD_DEREF", "LOAD_FAST", "LOAD_FAST_AND_CLEAR",
    "LOAD_FAST_CHECK", "LOAD_FAST_LOAD_FAST", "MAKE_CELL", "MAKE_FUNCTION", "MAP_ADD", "NOP", "POP_EXCEPT",
    "POP_JUMP_BACKWARD_IF_FALSE", "POP_JUMP_BACKWARD_IF_NONE", "POP_JUMP_BACKWARD_IF_NOT_NONE",
    "POP_JUMP_BACKWARD_IF_TRUE", "POP_JUMP_FORWARD_IF_FALSE", "POP_JUMP_FORWARD_IF_NONE",
    "POP_JUMP_FORWARD_IF_NOT_NONE", "POP_JUMP_FORWARD_IF_TRUE", "POP_JUMP_IF_FALSE", "POP_JUMP_IF_NONE",
    "POP_JUMP_IF_NOT_NONE", "POP_JUMP_IF_TRUE", "POP_TOP", "PRECALL", "PUSH_EXC_INFO", "PUSH_NULL", "RAISE_VARARGS",
    "RERAISE", "RESUME", "RETURN_CONST", "RETURN_GENERATOR", "RETURN_VALUE", "SET_ADD", "SET_FUNCTION_ATTRIBUTE",
    "SET_UPDATE", "STORE_DEREF", "STORE_FAST", "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST", "SWAP", "TO_BOOL",
    "UNARY_INVERT", "UNARY_NEGATIVE", "UNARY_NOT", "UNARY_POSITIVE", "UNPACK_EX", "UNPACK_SEQUENCE", "YIELD_VALUE",
})  # fmt: skip
_INDEX_OPCODES = ("LOAD_CONST", "LOAD_FAST")
_WRITING_OPCODES = (
    "STORE_ATTR",
    "DELETE_ATTR",
    "STORE_GLOBAL",
    "DELETE_GLOBAL",
    "STORE_SUBSCR",
    "DELETE_SUBSCR",
    "STORE_SLICE",
)


class _AttributeNames(NamedTuple):
    """Sort the attribute names of a module and its submodules."""

    values: set[str]  # of submodules, tensors and constants: harmless to read
    unknown: set[str]  # of methods, properties and other values: never harmless


def never_draws(module: nn.Module) -> bool:
    """Return whether it is proven that no submodule draws or changes a parameter in place; False if unknown.

    >>> never_draws(nn.Sequential(nn.Linear(1, 1), nn.Tanh())), never_draws(nn.Dropout())
    (True, False)
    """
    names = _attribute_names(module)
    return all(_is_harmless_module(sub, names) for sub in module.modules())


def names_rand_like(module: nn.Module) -> bool:
    """Return whether a forward names `rand_like` or a similar function, which torch.compile hides from modes."""
    codes = [getattr(type(sub).forward, "__code__", None) for sub in module.modules()]
    return any(name in _RAND_LIKE for code in codes if code for part in nested_code(code) for name in part.co_names)


def _attribute_names(module: nn.Module) -> _AttributeNames:
    names = _AttributeNames(set(), set())
    for sub in module.modules():
        names.values.update(sub._modules, sub._parameters, sub._buffers)
        for space in (vars(sub), *map(vars, user_classes(type(sub)))):
            for name, value in space.items():
                (names.values if is_constant(value) else names.unknown).add(name)
        for tensors in (sub._parameters, sub._buffers):
            names.unknown.update(name for name, value in tensors.items() if not is_constant(value))
    return names


def is_constant(value: Any) -> bool:
    """Return whether a value runs no code of the user; subclasses fail, because they may override operators."""
    if type(value) in (tuple, torch.Size):
        return all(map(is_constant, value))
    return type(value) in _CONSTANT_TYPES or type(value) in (Tensor, Parameter)


def _is_torch_nn_class(kind: type) -> bool:
    home = sys.modules.get(kind.__module__)
    return kind.__module__.startswith("torch.nn.modules.") and getattr(home, kind.__name__, None) is kind


def user_classes(kind: type) -> list[type]:
    """List the base classes that torch.nn does not define."""
    return [base for base in kind.__mro__ if base not in nn.Module.__mro__ and not _is_torch_nn_class(base)]


def _is_harmless_module(module: nn.Module, names: _AttributeNames) -> bool:
    kind = type(module)
    if module._forward_hooks or module._forward_pre_hooks or {"forward", "_call_impl"} & vars(module).keys():
        return False
    if any(getattr(kind, name) is not getattr(nn.Module, name) for name in _CALL_MACHINERY):
        return False
    defined = {name for base in user_classes(kind) for name, value in vars(base).items() if not is_constant(value)}
    if defined <= _HARMLESS_DEFINITIONS:
        return _is_harmless_layer(module)
    forward = kind.forward
    if not isinstance(forward, FunctionType) or forward.__code__.co_freevars:
        return False
    defaults = (*(forward.__defaults__ or ()), *(forward.__kwdefaults__ or {}).values())
    return all(map(is_constant, defaults)) and all(
        _is_harmless_code(part, forward.__globals__, names) for part in nested_code(forward.__code__)
    )


_CALL_MACHINERY = ("__call__", "_call_impl", "_wrapped_call_impl", "__getattr__", "__getattribute__")
_HARMLESS_DEFINITIONS = {"__init__", "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"}
_HARMLESS_DEFINITIONS |= {"__orig_bases__", "__dict__", "__weakref__"}


def _is_harmless_layer(module: nn.Module) -> bool:
    """Return whether a torch.nn layer draws nothing; a subclass that defines only `__init__` counts as one."""
    names = [base.__name__ for base in type(module).__mro__ if _is_torch_nn_class(base)]
    return (
        not any(word in name for word in _DRAWING_LAYERS for name in names)
        and not any(map(callable, vars(module).values()))  # such as the distance function of a loss
        and getattr(module, "max_norm", None) is None  # an embedding with one changes its weight
    )


def nested_code(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and all code objects nested in it."""
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from nested_code(part)


def _is_harmless_code(code: CodeType, space: dict[str, Any], names: _AttributeNames) -> bool:
    if any(isinstance(part, CodeType) and part.co_name not in _COMPREHENSIONS for part in code.co_consts):
        return False
    steps = list(dis.get_instructions(code))
    return all(
        _is_harmless_global(step.argval, space)
        if step.opname in _LOAD_GLOBAL
        else _is_harmless_attribute(step.argval, names)
        if step.opname in _LOAD_ATTRIBUTE
        else step.opname in _HARMLESS_OPCODES
        and not is_write(step)
        and (step.opname != "PUSH_NULL" or _calls_a_checked_name(steps, number))
        for number, step in enumerate(steps)
    )


def is_write(step: dis.Instruction) -> bool:
    """Return whether an instruction writes: an attribute, an item, a global, or in place (`+=`)."""
    in_place = step.opname == "BINARY_OP" and step.argrepr.endswith("=")
    return in_place or step.opname in _WRITING_OPCODES


def _calls_a_checked_name(steps: list[dis.Instruction], number: int) -> bool:
    """Return whether the called value is a global or an attribute, whose name is checked, and no local value."""
    if sys.version_info >= (3, 13):  # the value comes first: `self.layer`, or `self.layers[0]`
        owner, index, last = (steps[number - back].opname if number >= back else "" for back in (3, 2, 1))
        return last in _LOAD_ATTRIBUTE or (
            last == "BINARY_SUBSCR" and index in _INDEX_OPCODES and owner in _LOAD_ATTRIBUTE
        )
    first, second = steps[number + 1 : number + 3]
    return first.opname in _LOAD_GLOBAL or second.opname in _LOAD_ATTRIBUTE


def _is_harmless_global(name: str, space: dict[str, Any]) -> bool:
    if name in space:
        return any(space[name] is module for module in _TORCH_MODULES)
    found = getattr(builtins, name, None)
    return name in _BUILTINS or (isinstance(found, type) and issubclass(found, Exception))


def _is_harmless_attribute(name: str, names: _AttributeNames) -> bool:
    if name in names.unknown or any(word in name.lower() for word in (*_DRAWING_WORDS, *_CALLING_WORDS)):
        return False
    if name in _RENORMALISING and name not in names.values:
        return False
    found = _harmless_in_torch(name)
    return all(found) and (bool(found) or name in names.values)


@cache
def _harmless_in_torch(name: str) -> list[bool]:
    """Tell, for each torch namespace that has the name, whether it is a harmless operation or constant."""
    public = not name.startswith("_") and not name.endswith("_")
    return [public and _is_harmless_value(getattr(space, name)) for space in _NAMESPACES if hasattr(space, name)]


def _is_harmless_value(value: Any) -> bool:
    if isinstance(value, FunctionType):
        return value.__module__ in _PYTHON_MODULES
    if any(value is one for one in (*_TORCH_MODULES, torch.device, torch.Size)):
        return True
    operations = BuiltinFunctionType | MethodDescriptorType | GetSetDescriptorType | property
    return isinstance(value, operations) or is_constant(value)
