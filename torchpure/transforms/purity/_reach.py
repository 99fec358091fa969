"""Search what a function can reach without a call: closures, globals, attributes, up to a limit.

The search finds captured tensors, for checks that report mutations and leaks. Nothing else may depend on it: what it
finds depends on names in code and on the limit.
"""

import dis
import operator
from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache, partial
from itertools import islice
from types import BuiltinFunctionType, CodeType, FunctionType, MethodDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure import tree

LIMIT = 2000  # objects: a list of a million numbers is not searched
SHORT_LIMIT = 6  # objects: for a function that a whole search has passed before
_ATOMS = frozenset({
    type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size,
    ModuleType,
})  # fmt: skip
_PLAIN = frozenset({tuple, list, set, frozenset, deque})
_HOLDS = (Tensor, dict, list, tuple, set, deque, nn.Module)  # attributes of a class that are searched
_OPERATIONS = frozenset({BuiltinFunctionType, MethodDescriptorType})


def reachable(fn: Any) -> list[Tensor]:
    """List the tensors that can be reached from a function without a call."""
    return search(fn).tensors


def name_of(tensor: Tensor, fn: Any, same: Callable[[Any, Any], bool] = operator.is_) -> str:
    """Say how a function reaches a tensor: "a float32 tensor of shape (3,), `buffers.mean`"."""
    names: list[str] = []
    found = next((i for i, leaf in enumerate(search(fn, names, deep=True).tensors) if same(leaf, tensor)), None)
    return tree.describe(tensor) + ("" if found is None else f", `{names[found]}`")


class Found(NamedTuple):
    """The result of a search."""

    tensors: list[Tensor]
    is_whole: bool  # the limit left nothing out
    can_store: bool  # a call may store a tensor in something that was found
    sets_attributes: bool  # of any object


def search(fn: Any, names: list[str] | None = None, deep: bool = False, limit: int = LIMIT) -> Found:
    """Search from a function, at most `limit` objects; `deep` also searches all attributes of functions and modules."""
    visited: set[int] = set()
    tensors: list[Tensor] = []
    can_store, sets_attributes = False, False
    todo: list[tuple[Any, Any]] = [(fn, "")]
    for item, name in islice(todo, 4 * limit):  # grows as it goes; numbers and the like count here
        kind = type(item)
        if kind in _ATOMS or id(item) in visited:
            continue
        visited.add(id(item))
        if isinstance(item, Tensor):
            tensors.append(item)
            if names is not None:
                names.append(name)
        elif len(visited) < limit:
            parts, stores = _parts(item, kind, limit)
            can_store = can_store or stores
            if stores and kind is FunctionType:
                sets_attributes = sets_attributes or _names(item.__code__).sets_attributes
            if deep and (kind is FunctionType or isinstance(item, nn.Module)):
                parts = [*parts, *_attributes(item)]
            todo.extend(parts if names is None else ((part, _joined(name, key)) for part, key in parts))
    is_whole = len(visited) < limit and len(todo) <= 4 * limit
    return Found(tensors, is_whole, can_store, sets_attributes)


def _joined(name: str, key: Any) -> str:
    return f"{name}.{key}" if name and key != "" else f"{name or key}"


def _parts(item: Any, kind: type, limit: int) -> tuple[Iterable[tuple[Any, Any]], bool]:
    """Return (the named parts of an object, at most `limit`; whether a call may store something in it)."""
    if kind is FunctionType:
        if _is_library(item.__module__):
            return _cells(item), False
        found = _names(item.__code__)
        return _parts_of_function(item, found), found.stores
    if isinstance(item, dict):  # a list: threads may write meanwhile
        return [(value, key) for key, value in list(islice(item.items(), limit))], True
    if isinstance(item, tuple | list | set | frozenset | deque):
        held = islice(zip(item, range(len(item)), strict=True), limit)
        return (held if kind in _PLAIN else (*held, *_methods(kind))), kind in {list, set, deque}
    if kind is MethodType or kind is partial:
        return _parts_of_wrapper(item), False
    if isinstance(item, nn.Module):
        return _parts_of_module(item, kind)
    if isinstance(item, type):
        return (() if _is_library(item.__module__) else [*_held(item), *_methods(item)]), False
    if kind in _OPERATIONS or isinstance(item, ModuleType) or _is_library(kind.__module__):
        return [(hook, "hook") for hook in item.forward_hooks] if hasattr(kind, "forward_hooks") else (), False
    return [*_attributes(item), *_methods(kind)], True


def _held(kind: type) -> list[tuple[Any, Any]]:
    """List the attributes of a class that may hold tensors."""
    return [(value, name) for name, value in list(kind.__dict__.items()) if isinstance(value, _HOLDS)]


def _attributes(item: Any) -> list[tuple[Any, Any]]:
    try:
        return [(value, name) for name, value in list(item.__dict__.items())]
    except Exception:  # it has none, or it is a proxy without an object
        return []


def _parts_of_wrapper(item: Any) -> tuple[tuple[Any, Any], ...]:
    if isinstance(item, partial):
        return ((item.func, ""), (item.args, "args"), (item.keywords, "keywords"))
    return ((item.__self__, "self"), (item.__func__, ""))


def _parts_of_module(item: nn.Module, kind: type) -> tuple[list[tuple[Any, Any]], bool]:
    held = (item._parameters, item._buffers, item._modules)
    found: list[tuple[Any, Any]] = [(part, name) for parts in held for name, part in parts.items()]
    if item._forward_hooks or item._forward_pre_hooks:
        found.extend(
            (hook, "hook") for hooks in (item._forward_hooks, item._forward_pre_hooks) for hook in hooks.values()
        )
    if _is_library(kind.__module__):
        return found, False
    found.extend((value, name) for name, value in item.__dict__.items() if name[0] != "_")
    return [*found, *_methods(kind)], True


def forward_hooks(module: nn.Module) -> tuple[Callable[..., Any], ...]:
    """Return the forward hooks of a module and of the modules inside."""
    held = [held for part in module.modules() for held in (part._forward_hooks, part._forward_pre_hooks)]
    return tuple(hook for hooks in held for hook in hooks.values())


def _parts_of_function(fn: FunctionType, used: "_Names") -> list[tuple[Any, Any]]:
    found = _cells(fn)
    scope = fn.__globals__
    for name in used.globals:
        value = scope.get(name)
        if type(value) is ModuleType:
            if not _is_library(value.__name__):
                held = value.__dict__
                found.extend((held[part], f"{name}.{part}") for part in used.attributes if part in held)
        elif value is not None:
            found.append((value, name))
    if fn.__defaults__ or fn.__kwdefaults__:
        found.extend((value, "default") for value in (fn.__defaults__ or ()))
        found.extend((value, name) for name, value in (fn.__kwdefaults__ or {}).items())
    return found


def _cells(fn: FunctionType) -> list[tuple[Any, Any]]:
    found = []
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            found.append((cell.cell_contents, name))
        except ValueError:  # a cell without a value yet
            continue
    return found


@lru_cache(maxsize=1024)
def _is_library(module: str | None) -> bool:
    """Return whether a module belongs to a library whose functions store nothing."""
    return (module or "").partition(".")[0] in {"torchpure", "torch", "numpy", "builtins"}


class _Names(NamedTuple):
    """What code does with names; nested functions are included."""

    globals: tuple[str, ...]  # that it reads or writes
    attributes: tuple[str, ...]
    stores: bool  # it writes to outer names, or to attributes
    sets_attributes: bool


@lru_cache(maxsize=4096)
def _names(code: CodeType) -> _Names:
    steps = list(dis.get_instructions(code))
    read = [step.argval for step in steps if step.opname in {"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL"}]
    attributes = list(code.co_names)
    stores = any(
        step.opname == "STORE_GLOBAL" or (step.opname == "STORE_DEREF" and step.argval in code.co_freevars)
        for step in steps
    )
    sets_attributes = any(step.opname == "STORE_ATTR" for step in steps)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            inner = _names(const)
            read.extend(inner.globals)
            attributes.extend(inner.attributes)
            stores, sets_attributes = stores or inner.stores, sets_attributes or inner.sets_attributes
    names = tuple(dict.fromkeys(attributes))
    return _Names(tuple(dict.fromkeys(read)), names, stores or sets_attributes, sets_attributes)


@lru_cache(maxsize=4096)
def _methods(kind: type) -> tuple[tuple[FunctionType, str], ...]:
    """List the methods and properties of a class and its bases."""
    bases = [base.__dict__.values() for base in kind.__mro__ if not _is_library(base.__module__)]
    bodies = (_body(held) for held_by in bases for held in held_by)
    return tuple((body, "") for body in bodies if isinstance(body, FunctionType))


def _body(held: Any) -> Any:
    """Return the function of a method, property or cached property."""
    if isinstance(held, property):
        return held.fget
    if isinstance(held, cached_property):
        return held.func
    return held.__func__ if isinstance(held, staticmethod | classmethod) else held
