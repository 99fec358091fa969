"""What differs between two modules besides the values of their parameters and buffers."""

from collections.abc import Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any
from weakref import ReferenceType

import torch
from torch import Tensor, nn

_VALUES = frozenset({"_parameters", "_buffers", "_modules"})
_LISTS = {"_flat_weights", "_flat_weight_refs"}
_CLASS = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__static_attributes__"})


def first_difference(one: nn.Module, two: nn.Module) -> str | None:
    """Say where and how the second module differs from the first; None if both run the same code in the same way.

    >>> first_difference(nn.Sequential(nn.Dropout(0.1)), nn.Sequential(nn.Dropout(0.2)))
    '`0.p` is 0.2, wanted 0.1'
    """
    return next(_differences(one, two), None)


def _differences(one: nn.Module, two: nn.Module) -> Iterator[str]:
    first, second = dict(one.named_modules()), dict(two.named_modules())
    for path in first.keys() | second.keys():
        if path not in second or path not in first:
            yield f"`{path}` is {'missing' if path in first else 'not in the first'}"
    compare = _Comparison((*one.parameters(), *one.buffers()), (*two.parameters(), *two.buffers()))
    for path, wanted in first.items():
        yield from _differences_at(path, wanted, second[path], compare)


def _differences_at(path: str, one: nn.Module, two: nn.Module, compare: "_Comparison") -> Iterator[str]:
    place = f"`{path}`" if path else "the module"
    if not compare.kinds(type(one), type(two)):
        yield f"{place} is {_class_name(two)}, wanted {_class_name(one)}"
    if one.training != two.training:
        yield f"{place} is in {_mode(two)} mode, wanted {_mode(one)} mode"
    for name in dict.fromkeys((*vars(one), *vars(two))):
        wanted, got = vars(one).get(name), vars(two).get(name)
        if name in _VALUES or name in _recomputed(one) or compare.alike(wanted, got):
            continue
        if "_hooks" in name:
            yield f"{place} has other hooks in `{name}`"
        else:
            yield f"`{f'{path}.{name}'.strip('.')}` is {_shown(got)}, wanted {_shown(wanted)}"


def _recomputed(module: nn.Module) -> set[Any]:
    """Name the attributes that a forward makes again of parameters: by hooks, as the older weight norm, or lists."""
    hooks = module._forward_pre_hooks.values()
    found = {getattr(hook, name, None) for hook in hooks for name in ("name", "_tensor_name")}
    return found | _LISTS if isinstance(module, nn.RNNBase) else found


def _class_name(module: nn.Module) -> str:
    return f"a {type(module).__module__}.{type(module).__qualname__}"


def _mode(module: nn.Module) -> str:
    return "train" if module.training else "eval"


def _shown(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 60 else f"{text[:57]}…"


class _Comparison:
    """Compares attributes of two modules; what was compared once is not compared again."""

    def __init__(self, first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> None:
        self._places = {id(leaf): number for number, leaf in enumerate(first)}
        self._places |= {id(leaf): number for number, leaf in enumerate(second)}
        self._seen: dict[tuple[int, int], tuple[Any, Any]] = {}  # holds both, so that their ids stay taken

    def alike(self, one: Any, two: Any) -> bool:
        """Return whether two values make no difference to the code that uses them."""
        if one is two or (id(one), id(two)) in self._seen:
            return True
        self._seen[id(one), id(two)] = one, two
        if isinstance(one, Tensor) and isinstance(two, Tensor):
            return self._tensors(one, two)
        if isinstance(one, type) and isinstance(two, type):
            return self.kinds(one, two)
        if type(one) is not type(two):
            return isinstance(one, nn.Module) and isinstance(two, nn.Module) and self.kinds(type(one), type(two))
        return self._of_one_type(one, two)

    def kinds(self, one: type, two: type) -> bool:
        """Return whether two classes have the same code: torch makes a class for each parametrized module."""
        if one is two:
            return True
        if (one.__module__, one.__qualname__) != (two.__module__, two.__qualname__) or one.__bases__ != two.__bases__:
            return False
        parts = ({name: part for name, part in vars(kind).items() if name not in _CLASS} for kind in (one, two))
        return self.alike(*parts)

    def _tensors(self, one: Tensor, two: Tensor) -> bool:
        places = self._places.get(id(one)), self._places.get(id(two))
        if places != (None, None):
            return places[0] == places[1]  # the same parameter of each
        return one.dtype == two.dtype and torch.equal(one.nan_to_num(), two.nan_to_num())

    def _of_one_type(self, one: Any, two: Any) -> bool:
        if isinstance(one, Mapping):
            hooks = all(isinstance(key, int) for key in (*one, *two))  # hooks are numbered over all modules
            return (hooks or list(one) == list(two)) and self._all_alike(list(one.values()), list(two.values()))
        if isinstance(one, list | tuple):
            return self._all_alike(one, two)
        if isinstance(one, FunctionType):
            return _same_code(one.__code__, two.__code__) and self._all_alike(_inputs(one), _inputs(two))
        if isinstance(one, MethodType):
            return self._all_alike((one.__func__, one.__self__), (two.__func__, two.__self__))
        if isinstance(one, partial):
            return self._all_alike((one.func, one.args, one.keywords), (two.func, two.args, two.keywords))
        if isinstance(one, property):
            return self._all_alike((one.fget, one.fset), (two.fget, two.fset))
        if isinstance(one, ReferenceType):
            return self.alike(one(), two())
        return self._objects(one, two)

    def _objects(self, one: Any, two: Any) -> bool:
        if type(one).__eq__ is object.__eq__ or isinstance(one, nn.Module):
            return self.alike(getattr(one, "__dict__", None), getattr(two, "__dict__", None))
        same = one == two
        return bool(same.all() if hasattr(same, "all") else same) or (one != one and two != two)  # NaN

    def _all_alike(self, one: Any, two: Any) -> bool:
        return len(one) == len(two) and all(map(self.alike, one, two))


def _same_code(one: CodeType, two: CodeType) -> bool:
    return one == two or (one.co_code, one.co_consts, one.co_names) == (two.co_code, two.co_consts, two.co_names)


def _inputs(function: FunctionType) -> tuple[Any, ...]:
    """Return what a function reads besides its arguments."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    return cells, function.__defaults__, function.__kwdefaults__


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
