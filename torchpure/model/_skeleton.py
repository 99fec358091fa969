"""Private copies of a module with slots to put values in.

A call takes a free skeleton (or makes one), fills its slots, runs it and empties it again: so calls nest, run in
several threads, and leave the user's module alone. Whatever the user does to that module later changes nothing here.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure._types import Params
from torchpure.errors import ImpureError, ParameterError

from ._forms import values
from ._proof import names_like_draws, never_draws

Slot = tuple[dict[str, Any], str, int]  # a module's own dict, the name in it, the number of the value


class Skeleton(NamedTuple):
    """A private copy of a module and where its values go."""

    module: nn.Module
    parameters: list[Slot]
    buffers: list[Slot]
    working: list[Tensor]  # its own copies of the buffers, which a pure call leaves as they are


class Values:
    """The parameters, or the buffers, of a module: names, shapes and first values."""

    __slots__ = ("_shapes", "_tied", "_who", "names", "tensors")

    def __init__(self, who: str, first: Mapping[str, Tensor], every: Mapping[str, Tensor]) -> None:
        canonical = {id(tensor): name for name, tensor in first.items()}
        self._who = who
        self._tied = {name: canonical[id(tensor)] for name, tensor in every.items() if name not in first}
        self.names = list(first)
        self.tensors = [tensor.detach().clone() for tensor in first.values()]
        self._shapes = [tensor.shape for tensor in self.tensors]

    def copies(self) -> list[Tensor]:
        """Clone the first values."""
        return [tensor.clone() for tensor in self.tensors]

    def match(self, given: Params) -> list[Tensor]:
        """List given values in the module's order; raise ParameterError when they do not fit."""
        return values(given, self.names, self._shapes, self._tied, self._who)


class Pool:
    """The free skeletons of one module. `take` and `give_back` are atomic, so that threads may share it."""

    __slots__ = ("_free", "buffers", "names_draw", "parameters", "proven", "template", "trainable")

    def __init__(self, module: nn.Module) -> None:
        who = type(module).__name__
        twin = _private_copy(module)
        every = dict(twin.named_parameters(remove_duplicate=False))
        every_buffer = dict(twin.named_buffers(remove_duplicate=False))
        self.parameters = Values(f"{who}: parameters", dict(twin.named_parameters()), every)
        self.buffers = Values(f"{who}: buffers", dict(twin.named_buffers()), every_buffer)
        self.trainable = tuple(name for name, value in twin.named_parameters() if value.requires_grad)
        parameters, buffers = _slots(twin)
        fill(parameters, self.parameters.tensors)
        fill(buffers, self.buffers.tensors)
        self.template = twin  # only ever copied, or traced
        self.proven = never_draws(twin)
        self.names_draw = names_like_draws(twin)
        self._free: list[Skeleton] = []

    def make(self) -> Skeleton:
        """Copy the template."""
        twin = _private_copy(self.template)
        parameters, buffers = _slots(twin)
        with torch.inference_mode(False):
            working = self.buffers.copies()
        fill(buffers, working)
        return Skeleton(twin, parameters, buffers, working)

    def take(self) -> Skeleton:
        """Return a skeleton that nobody else uses."""
        try:
            return self._free.pop()
        except IndexError:
            return self.make()

    def give_back(self, skeleton: Skeleton) -> None:
        """Let the next call use a skeleton."""
        self._free.append(skeleton)

    def changed(self, skeleton: Skeleton) -> list[str]:
        """Name the buffers that a call has changed."""
        return [
            self.buffers.names[number]
            for own, name, number in skeleton.buffers
            if own[name] is not skeleton.working[number] or skeleton.working[number]._version
        ]


def _private_copy(module: nn.Module) -> nn.Module:
    """Copy a module, all but its tensors.

    Raises:
        ParameterError: an attribute cannot be copied, a parameter is not initialised yet, or a function in the module
            holds on to the original, which would go on using the original's values.
    """
    for name, parameter in module.named_parameters():
        if torch.nn.parameter.is_lazy(parameter):
            raise ParameterError(f"functional: `{name}` has no shape yet: call the module once on an example input")
    try:
        twin = copy.deepcopy(module, {id(tensor): tensor for tensor in _tensors(module)})
    except Exception as error:
        raise ParameterError(f"functional: {_uncopyable(module)}: {error}") from error
    _refuse_captured(module, twin)
    return twin


def _slots(module: nn.Module) -> tuple[list[Slot], list[Slot]]:
    """Find where the values go, in the order of their names; a tied value has several places."""
    parameters = {id(value): number for number, value in enumerate(module.parameters())}
    buffers = {id(value): number for number, value in enumerate(module.buffers())}
    subs = list(module.modules())
    return (
        [(sub._parameters, name, parameters[id(value)]) for sub in subs for name, value in _own(sub._parameters)],
        [(sub._buffers, name, buffers[id(value)]) for sub in subs for name, value in _own(sub._buffers)],
    )


def fill(slots: list[Slot], values: Sequence[Tensor]) -> None:
    """Put values into their slots."""
    for own, name, number in slots:
        own[name] = values[number]


def _own(values: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in values.items() if value is not None)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
    for sub in module.modules():
        yield from (value for value in vars(sub).values() if isinstance(value, Tensor))


def _uncopyable(module: nn.Module) -> str:
    for path, sub in module.named_modules():
        for name, value in vars(sub).items():
            if name in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                copy.deepcopy(value, {id(tensor): tensor for tensor in _tensors(module)})
            except Exception:
                return f"cannot copy attribute `{f'{path}.{name}'.strip('.')}` ({type(value).__name__})"
    return "cannot copy the module"


def _refuse_captured(module: nn.Module, twin: nn.Module) -> None:
    """Refuse a copy in which a function still holds the original: copying leaves closures as they are."""
    originals = {id(sub) for sub in module.modules()} | {id(parameter) for parameter in module.parameters()}
    for path, sub in twin.named_modules():
        for name, value in vars(sub).items():
            if name in ("_modules", "_parameters", "_buffers"):
                continue
            if any(id(held) in originals for fn in _functions(value, 3) for held in _held(fn)):
                where = f"{path}.{name}".strip(".")
                raise ImpureError(
                    f"functional: a function in `{where}` of {type(sub).__name__} holds the module itself in its "
                    "closure, so it would keep using the module's own values: make it a method, or pass the module in"
                )


def _functions(value: Any, depth: int) -> Iterator[Callable[..., Any]]:
    if isinstance(value, FunctionType | MethodType | functools.partial):
        yield value
    elif depth and isinstance(value, dict):
        for inner in value.values():
            yield from _functions(inner, depth - 1)
    elif depth and isinstance(value, list | tuple | set):
        for inner in value:
            yield from _functions(inner, depth - 1)


def _held(fn: Any) -> Iterator[Any]:
    if isinstance(fn, functools.partial):
        yield from (*fn.args, *fn.keywords.values())
        yield from _held(fn.func)
    elif isinstance(fn, MethodType):
        yield fn.__self__
    elif isinstance(fn, FunctionType):
        yield from fn.__defaults__ or ()
        for cell in fn.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a cell that was never filled
                continue
