"""Search what a function can reach without a call: closures, globals, attributes, up to a limit.

The search finds captured tensors for the guard. On the way it reads the names in the code: they decide whether the
function needs the override mode.
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
from torchpure.transforms.overrides import INTERCEPTED, OUTERMOST_GRAD, OUTERMOST_NAMES, SEARCHED, SEARCHED_NAMES

_LIMIT = 2000  # objects: a list of a million numbers is not searched
_ATOMS = frozenset({
    type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size,
    ModuleType,
})  # fmt: skip
_PLAIN = frozenset({tuple, list, set, frozenset, deque})
_HOLDS = (Tensor, dict, list, tuple, set, deque, nn.Module)  # attributes of a class that are searched
_OPERATIONS = frozenset({BuiltinFunctionType, MethodDescriptorType})
_OVERRIDDEN, _AUTOGRAD = 1, 2  # flags: needs the override mode under transforms; in the outermost gradient too
_AUTOGRAD_NAMES = frozenset({  # names in code that set the flag _AUTOGRAD
    "autograd", "backward", "linearize", "torch.autograd", "torch.autograd.functional",
    "batch_norm", "instance_norm", "deepcopy", *OUTERMOST_NAMES,
})  # fmt: skip
_FUNCTIONAL = "torch.autograd.functional"


def reachable(fn: Any) -> list[Tensor]:
    """List the tensors that can be reached from a function without a call."""
    return _search(fn).tensors


def name_of(tensor: Tensor, fn: Any, same: Callable[[Any, Any], bool] = operator.is_) -> str:
    """Say how a function reaches a tensor: "a float32 tensor of shape (3,), `buffers.mean`"."""
    names: list[str] = []
    found = next((i for i, leaf in enumerate(_search(fn, names, deep=True).tensors) if same(leaf, tensor)), None)
    return tree.describe(tensor) + ("" if found is None else f", `{names[found]}`")


def needs_overrides(fn: Any) -> int:
    """Return flags: 1 if code that can be reached names an overridden operation, 2 if it may call torch's autograd."""
    return _search(fn).flags


class _Found(NamedTuple):
    """The result of a search."""

    tensors: list[Tensor]
    can_store: bool  # a call may store a tensor in something that was found
    flags: int  # _OVERRIDDEN, _AUTOGRAD
    sets_attributes: bool  # of any object


def _search(fn: Any, names: list[str] | None = None, deep: bool = False) -> _Found:
    """Search from a function; `deep` also searches all attributes of functions and modules."""
    visited: set[int] = set()
    tensors: list[Tensor] = []
    can_store, flags, sets_attributes = False, 0, False
    todo: list[tuple[Any, Any]] = [(fn, "")]
    for item, name in todo:  # grows as it goes
        kind = type(item)
        if kind in _ATOMS or id(item) in visited:
            continue
        visited.add(id(item))
        if isinstance(item, Tensor):
            tensors.append(item)
            if names is not None:
                names.append(name)
        elif len(visited) < _LIMIT:
            parts, stores, found = _parts(item, kind)
            can_store, flags = can_store or stores, flags | found
            if stores and kind is FunctionType:
                sets_attributes = sets_attributes or _names(item.__code__).sets_attributes
            if deep and (kind is FunctionType or isinstance(item, nn.Module)):
                parts = [*parts, *_attributes(item)]
            todo.extend(parts if names is None else ((part, _joined(name, key)) for part, key in parts))
    return _Found(tensors, can_store, flags, sets_attributes)


def _joined(name: str, key: Any) -> str:
    return f"{name}.{key}" if name and key != "" else f"{name or key}"


def _parts(item: Any, kind: type) -> tuple[Iterable[tuple[Any, Any]], bool, int]:
    """Return (the named parts of an object, whether a call may store something in it, its flags)."""
    if kind is FunctionType:
        if _is_library(item.__module__):
            return _cells(item), False, _of_library(item)
        found = _names(item.__code__)
        return _parts_of_function(item, found), found.stores, found.flags
    if isinstance(item, dict):
        return (
            [(value, key) for key, value in list(item.items())[:_LIMIT]],
            True,
            0,
        )  # a list: threads may write meanwhile
    if isinstance(item, tuple | list | set | frozenset | deque):
        held = islice(zip(item, range(len(item)), strict=True), _LIMIT)
        return (held if kind in _PLAIN else (*held, *_methods(kind))), kind in {list, set, deque}, 0
    if kind is MethodType or kind is partial:
        return _parts_of_wrapper(item), False, 0
    if kind in _OPERATIONS:
        return (), False, 0 if item not in SEARCHED else _AUTOGRAD if item in OUTERMOST_GRAD else _OVERRIDDEN
    if isinstance(item, nn.Module):
        return _parts_of_module(item, kind)
    if isinstance(item, type):
        return (() if _is_library(item.__module__) else [*_held(item), *_methods(item)]), False, 0
    if isinstance(item, ModuleType) or _is_library(kind.__module__):
        return (), False, item.needs_overrides if hasattr(kind, "needs_overrides") else 0
    return [*_attributes(item), *_methods(kind)], True, 0


def _of_library(fn: FunctionType) -> int:
    if fn in SEARCHED:
        return _OVERRIDDEN
    return _AUTOGRAD if fn in INTERCEPTED or fn is torch.func.linearize or fn.__module__ == _FUNCTIONAL else 0


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


def _parts_of_module(item: nn.Module, kind: type) -> tuple[list[tuple[Any, Any]], bool, int]:
    found = [(part, name) for held in (item._parameters, item._buffers, item._modules) for name, part in held.items()]
    flags = _forward_flags(kind)
    if _is_library(kind.__module__):
        return found, False, flags
    found.extend((value, name) for name, value in item.__dict__.items() if name[0] != "_")
    return [*found, *_methods(kind)], True, flags


@lru_cache(maxsize=1024)
def _forward_flags(kind: type[nn.Module]) -> int:
    """Return the flags of a `forward` that torch defines; a user's `forward` is searched with the methods."""
    forward: Any = kind.forward
    of_library = isinstance(forward, FunctionType) and _is_library(forward.__module__)
    return _names(forward.__code__).flags & _OVERRIDDEN if of_library else 0


def _parts_of_function(fn: FunctionType, used: "_Names") -> list[tuple[Any, Any]]:
    found = _cells(fn)
    scope = fn.__globals__
    for name in used.globals:
        value = scope.get(name)
        if type(value) is ModuleType:
            if value.__name__ in _AUTOGRAD_NAMES:
                found.append((torch.autograd.grad, name))  # code that names the module may call autograd
            elif not _is_library(value.__name__):
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
    flags: int  # _OVERRIDDEN, _AUTOGRAD


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
    flags = (0 if SEARCHED_NAMES.isdisjoint(names) else _OVERRIDDEN) | (
        0 if _AUTOGRAD_NAMES.isdisjoint(names) else _AUTOGRAD
    )
    return _Names(tuple(dict.fromkeys(read)), names, stores or sets_attributes, sets_attributes, flags)


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
