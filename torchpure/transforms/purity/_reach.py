"""Search what a function can reach: closures, globals, attributes, up to a limit."""

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

_LIMIT = 2000  # objects looked at: a list of a million numbers is not searched
_ATOMS = frozenset({
    type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size,
    ModuleType,
})  # fmt: skip
_PLAIN = frozenset({tuple, list, set, frozenset, deque})
_HOLDS = (Tensor, dict, list, tuple, set, deque, nn.Module)  # what is looked for in a class
_OPERATIONS = frozenset({BuiltinFunctionType, MethodDescriptorType})
_REPLACES, _DIFFERENTIATES = 1, 2  # what code runs: operations to replace, torch's autograd
_SEEN_NAMES = frozenset({  # what plain autograd needs a look at, too
    "autograd", "backward", "linearize", "torch.autograd", "torch.autograd.functional",
    "batch_norm", "instance_norm", "deepcopy", *OUTERMOST_NAMES,
})  # fmt: skip
_FUNCTIONAL = "torch.autograd.functional"


def reachable(fn: Any) -> list[Tensor]:
    """List the tensors that can be reached from a function without calling anything."""
    return _search(fn).tensors


def name_of(tensor: Tensor, fn: Any, same: Callable[[Any, Any], bool] = operator.is_) -> str:
    """Say how a function reaches a tensor: "a float32 tensor of shape (3,), `buffers.mean`"."""
    names: list[str] = []
    found = next((i for i, leaf in enumerate(_search(fn, names, deep=True).tensors) if same(leaf, tensor)), None)
    return tree.describe(tensor) + ("" if found is None else f", `{names[found]}`")


def runs(fn: Any) -> int:
    """Tell whether what can be reached has operations to replace (1), or some that plain autograd needs too (2)."""
    return _search(fn).runs


class _Found(NamedTuple):
    """What a search has found."""

    tensors: list[Tensor]
    keeps: bool  # there is a place that a call may put tensors in
    runs: int  # there is an operation to replace, or a call of torch's autograd
    sets: bool  # code sets attributes, which may be those of anything


def _search(fn: Any, names: list[str] | None = None, deep: bool = False) -> _Found:
    """List the tensors that can be reached; with `deep` also in attributes that only an assignment puts there."""
    seen: set[int] = set()
    tensors: list[Tensor] = []
    keeps, runs, sets = False, 0, False
    todo: list[tuple[Any, Any]] = [(fn, "")]
    for item, name in todo:  # grows as it goes
        kind = type(item)
        if kind in _ATOMS or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            tensors.append(item)
            if names is not None:
                names.append(name)
        elif len(seen) < _LIMIT:
            parts, kept, replaced = _parts(item, kind)
            keeps, runs = keeps or kept, runs | replaced
            if kept and kind is FunctionType:
                sets = sets or _names(item.__code__).sets
            if deep and (kind is FunctionType or isinstance(item, nn.Module)):
                parts = [*parts, *_attributes(item)]
            todo.extend(parts if names is None else ((part, _joined(name, key)) for part, key in parts))
    return _Found(tensors, keeps, runs, sets)


def _joined(name: str, key: Any) -> str:
    return f"{name}.{key}" if name and key != "" else f"{name or key}"


def _parts(item: Any, kind: type) -> tuple[Iterable[tuple[Any, Any]], bool, int]:
    """List what an object holds, with names; tell whether a call may put something there, and what it runs."""
    if kind is FunctionType:
        if _is_library(item.__module__):
            return _cells(item), False, _of_library(item)
        found = _names(item.__code__)
        return _parts_of_function(item, found), found.stores, found.runs
    if isinstance(item, dict):
        return [(value, key) for key, value in list(item.items())[:_LIMIT]], True, 0  # at once: threads may write
    if isinstance(item, tuple | list | set | frozenset | deque):
        held = islice(zip(item, range(len(item)), strict=True), _LIMIT)
        return (held if kind in _PLAIN else (*held, *_methods(kind))), kind in {list, set, deque}, 0
    if kind is MethodType or kind is partial:
        return _parts_of_wrapper(item), False, 0
    if kind in _OPERATIONS:
        return (), False, 0 if item not in SEARCHED else _DIFFERENTIATES if item in OUTERMOST_GRAD else _REPLACES
    if isinstance(item, nn.Module):
        return _parts_of_module(item, kind)
    if isinstance(item, type):
        return (() if _is_library(item.__module__) else [*_held(item), *_methods(item)]), False, 0
    if isinstance(item, ModuleType) or _is_library(kind.__module__):
        return (), False, item.runs if hasattr(kind, "runs") else 0
    return [*_attributes(item), *_methods(kind)], True, 0


def _of_library(fn: FunctionType) -> int:
    if fn in SEARCHED:
        return _REPLACES
    return _DIFFERENTIATES if fn in INTERCEPTED or fn is torch.func.linearize or fn.__module__ == _FUNCTIONAL else 0


def _held(kind: type) -> list[tuple[Any, Any]]:
    """List what a class has in attributes of its own."""
    return [(value, name) for name, value in list(kind.__dict__.items()) if isinstance(value, _HOLDS)]


def _attributes(item: Any) -> list[tuple[Any, Any]]:
    try:
        return [(value, name) for name, value in list(item.__dict__.items())]
    except Exception:  # none, or a proxy that stands for something which is not there
        return []


def _parts_of_wrapper(item: Any) -> tuple[tuple[Any, Any], ...]:
    if isinstance(item, partial):
        return ((item.func, ""), (item.args, "args"), (item.keywords, "keywords"))
    return ((item.__self__, "self"), (item.__func__, ""))


def _parts_of_module(item: nn.Module, kind: type) -> tuple[list[tuple[Any, Any]], bool, int]:
    found = [(part, name) for held in (item._parameters, item._buffers, item._modules) for name, part in held.items()]
    replaces = _library_forward(kind)
    if _is_library(kind.__module__):
        return found, False, replaces
    found.extend((value, name) for name, value in item.__dict__.items() if name[0] != "_")
    return [*found, *_methods(kind)], True, replaces


@lru_cache(maxsize=1024)
def _library_forward(kind: type[nn.Module]) -> int:
    """Tell whether a forward that comes from torch names an operation to replace; others are searched as methods."""
    forward: Any = kind.forward
    ours = isinstance(forward, FunctionType) and _is_library(forward.__module__)
    return _names(forward.__code__).runs & _REPLACES if ours else 0


def _parts_of_function(fn: FunctionType, used: "_Names") -> list[tuple[Any, Any]]:
    found = _cells(fn)
    scope = fn.__globals__
    for name in used.read:
        value = scope.get(name)
        if type(value) is ModuleType:
            if value.__name__ in _SEEN_NAMES:
                found.append((torch.autograd.grad, name))  # code that names the module may call it
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
        except ValueError:  # a name that has no value yet
            continue
    return found


@lru_cache(maxsize=1024)
def _is_library(module: str | None) -> bool:
    """Tell whether nothing that belongs to a module is changed by its use."""
    return (module or "").partition(".")[0] in {"torchpure", "torch", "numpy", "builtins"}


class _Names(NamedTuple):
    """What code does with names, that of its nested functions included."""

    read: tuple[str, ...]  # globals that it reads or writes
    attributes: tuple[str, ...]
    stores: bool  # it writes to names outside, or to attributes
    sets: bool  # it writes to attributes
    runs: int  # an attribute or a global is called as an operation to replace is, or torch's autograd


@lru_cache(maxsize=4096)
def _names(code: CodeType) -> _Names:
    steps = list(dis.get_instructions(code))
    read = [step.argval for step in steps if step.opname in {"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL"}]
    attributes = list(code.co_names)
    stores = any(
        step.opname == "STORE_GLOBAL" or (step.opname == "STORE_DEREF" and step.argval in code.co_freevars)
        for step in steps
    )
    sets = any(step.opname == "STORE_ATTR" for step in steps)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            inner = _names(const)
            read.extend(inner.read)
            attributes.extend(inner.attributes)
            stores, sets = stores or inner.stores, sets or inner.sets
    names = tuple(dict.fromkeys(attributes))
    runs = (0 if SEARCHED_NAMES.isdisjoint(names) else _REPLACES) | (
        0 if _SEEN_NAMES.isdisjoint(names) else _DIFFERENTIATES
    )
    return _Names(tuple(dict.fromkeys(read)), names, stores or sets, sets, runs)


@lru_cache(maxsize=4096)
def _methods(kind: type) -> tuple[tuple[FunctionType, str], ...]:
    """List the methods and properties of a class, and of those that it inherits from."""
    bases = [base.__dict__.values() for base in kind.__mro__ if not _is_library(base.__module__)]
    bodies = (_body(held) for held_by in bases for held in held_by)
    return tuple((body, "") for body in bodies if isinstance(body, FunctionType))


def _body(held: Any) -> Any:
    """Return the function in what a class holds."""
    if isinstance(held, property):
        return held.fget
    if isinstance(held, cached_property):
        return held.func
    return held.__func__ if isinstance(held, staticmethod | classmethod) else held
