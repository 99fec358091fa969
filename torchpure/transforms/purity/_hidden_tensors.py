"""Objects in a result that are no trees, and hold traced tensors: no transform can take those out of its level."""

import gc
from collections.abc import Callable, Iterable, Iterator, MappingView
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure.errors import TransformError
from torchpure.transforms.engine import describe_function, stale

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size})
_LIMIT = 1000  # objects that are searched for each leaf


def refuse_hidden_tensors(
    caller: str, fn: Callable[..., Any], leaves: Iterable[Any], traced: Callable[[Tensor], bool] = stale
) -> None:
    """Check that no leaf of a result is an object that holds a traced tensor.

    Raises:
        TransformError: one does; the message says where.
    """
    if is_dynamo_compiling():
        return
    for leaf in leaves:
        if type(leaf) in _ATOMS or isinstance(leaf, Tensor):
            continue
        for found, name in _held_tensors(leaf):
            if traced(found):
                raise TransformError(
                    f"{caller}: {describe_function(fn)} returns {_described(leaf)}, which is no tree, and "
                    f"{f'`{name}` of it' if name else 'what it holds'} is a traced tensor: {_way_out(leaf)}"
                )


def _described(leaf: Any) -> str:
    return "a function" if isinstance(leaf, FunctionType) else f"an object of class {type(leaf).__name__}"


def _way_out(leaf: Any) -> str:
    if isinstance(leaf, Iterator | MappingView):
        return "return a tuple or a dict of its items, as tuple(…) makes it"
    return "return the tensor in a tuple or a dict, or make the class a tree with tree.register_dataclass"


def _held_tensors(value: Any) -> Iterator[tuple[Tensor, str]]:
    """Yield the tensors that an object holds, with the names of their places."""
    seen: dict[int, Any] = {}  # holds the objects, so that their ids stay taken
    todo: list[tuple[Any, str]] = [(value, "")]
    for item, name in todo:  # grows as it goes
        if isinstance(item, Tensor):
            yield item, name
        elif type(item) not in _ATOMS and id(item) not in seen and len(seen) < _LIMIT:
            seen[id(item)] = item
            todo.extend((part, f"{name}.{key}".strip(".")) for key, part in _parts(item))


def _parts(item: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(item, type | ModuleType):
        return
    if isinstance(item, dict):
        yield from list(item.items())
        yield from (("", key) for key in list(item) if isinstance(key, Tensor))
    elif isinstance(item, list | tuple | set | frozenset):
        yield from enumerate(item)
    elif isinstance(item, partial):
        yield from (("func", item.func), ("args", item.args), ("keywords", item.keywords))
    elif isinstance(item, MethodType):
        yield "self", item.__self__
    elif isinstance(item, FunctionType):
        yield from zip(item.__code__.co_freevars, map(_contents, item.__closure__ or ()), strict=True)
    yield from getattr(item, "__dict__", {}).items()
    for kind in type(item).__mro__:
        names = kind.__dict__.get("__slots__", ())
        yield from ((name, getattr(item, name, None)) for name in ((names,) if isinstance(names, str) else names))
    if not hasattr(item, "__dict__"):  # a class in C, such as an iterator, has parts without names
        held = gc.get_referents(item) if str(getattr(item, "dtype", "")) != "object" else item.flat  # an array
        yield from (("", part) for part in held if not isinstance(part, type | ModuleType | CodeType))


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a cell without a value yet
        return None
