"""Private copies of a module with slots to put values in.

A call takes a free skeleton (or makes one), fills its slots, runs it and empties it again: so calls nest, run in
several threads, and leave the user's module alone. Whatever the user does to that module later changes nothing here.
"""

import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure._types import Params
from torchpure.errors import ImpureError, ParameterError
from torchpure.transforms.purity import needs_overrides

from ._hidden_state import remembers
from ._never_draws import names_like_draws, never_draws
from ._parameter_trees import values
from ._pure_layers import WithState, adapt, needs_adapting

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

    def named(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Order values by the module's names; raise ParameterError when they do not fit."""
        return dict(zip(self.names, self.match(found), strict=True))

    def match(self, given: Params) -> list[Tensor]:
        """List given values in the module's order; raise ParameterError when they do not fit."""
        return values(given, self.names, self._shapes, self._tied, self._who)


class Pool:
    """The free skeletons of one module. `take` and `give_back` are atomic, so that threads may share it."""

    __slots__ = (
        "_free", "_modes", "buffers", "give_back", "names_draw", "parameters", "proven", "refilled", "runs",
        "template", "traced", "trainable",
    )  # fmt: skip

    def __init__(self, template: nn.Module, parameters: Values, buffers: Values, trainable: tuple[str, ...]) -> None:
        self.parameters, self.buffers, self.trainable = parameters, buffers, trainable
        own_parameters, own_buffers = _slots(template)
        fill(own_parameters, parameters.tensors)
        fill(own_buffers, buffers.tensors)
        self.template = template  # only ever copied, or traced
        self.traced = WithState(adapt(_private_copy(template)) if needs_adapting(template) else template)
        self.proven = never_draws(template)
        self.names_draw = names_like_draws(template)
        self.runs = needs_overrides(template)  # what transforms must see in its code
        self.refilled = False  # whether it is known that `init` refills every parameter
        self._modes: dict[bool, Pool] = {}
        self._free: list[Skeleton] = []
        # let the next call use a skeleton, but not one that may remember this call
        self.give_back: Callable[[Skeleton], None] = _drop if remembers(template) else self._free.append

    def in_mode(self, train: bool | None) -> "Pool":
        """Return the pool of the same module with every submodule in training or evaluation mode; itself for None."""
        if train is None:
            return self
        if not isinstance(train, bool):
            raise TypeError(f"apply: train must be True, False or None, got {train!r}")
        if train not in self._modes:
            twin = _private_copy(self.template).train(train)
            self._modes.setdefault(train, Pool(twin, self.parameters, self.buffers, self.trainable))
        return self._modes[train]

    def make(self) -> Skeleton:
        """Copy the template."""
        with torch.inference_mode(False):
            twin = _private_copy(self.template)
            working = self.buffers.copies()
        parameters, buffers = _slots(twin)
        fill(buffers, working)
        return Skeleton(twin, parameters, buffers, working)

    def take(self) -> Skeleton:
        """Return a skeleton that nobody else uses."""
        try:
            return self._free.pop()
        except IndexError:
            skeleton = self.make()
            adapt(skeleton.module)
            return skeleton

    def changed(self, skeleton: Skeleton) -> list[str]:
        """Name the buffers that a call has changed."""
        return [
            self.buffers.names[number]
            for own, name, number in skeleton.buffers
            if own[name] is not skeleton.working[number] or skeleton.working[number]._version
        ]


def pool_of(module: nn.Module) -> Pool:
    """Make the pool of a user's module, which is neither kept nor changed.

    Raises:
        ParameterError: an attribute cannot be copied, or a parameter is not initialised yet.
        ImpureError: the module holds a generator, or something in it holds on to the module's own values.
    """
    _refuse_generators(module)
    who = type(module).__name__
    twin = _private_copy(module)
    every = dict(twin.named_parameters(remove_duplicate=False))
    every_buffer = dict(twin.named_buffers(remove_duplicate=False))
    parameters = Values(f"{who}: parameters", dict(twin.named_parameters()), every)
    buffers = Values(f"{who}: buffers", dict(twin.named_buffers()), every_buffer)
    trainable = tuple(name for name, value in twin.named_parameters() if value.requires_grad)
    return Pool(twin, parameters, buffers, trainable)


def _refuse_generators(module: nn.Module) -> None:
    for path, sub in module.named_modules():
        for name, value in vars(sub).items():
            if isinstance(value, torch.Generator):
                raise ImpureError(
                    f"functional: `{f'{path}.{name}'.strip('.')}` is a generator, which every draw changes: draw "
                    "without it, and the key that a call is given answers"
                )


def _drop(skeleton: Skeleton) -> None:
    """Forget a skeleton."""


def _private_copy(module: nn.Module) -> nn.Module:
    """Copy a module, all but its parameters and buffers.

    Raises:
        ParameterError: an attribute cannot be copied, or a parameter is not initialised yet.
        ImpureError: a function or a container in the module holds on to the original's values.
    """
    for name, value in itertools.chain(module.named_parameters(), module.named_buffers()):
        if torch.nn.parameter.is_lazy(value):
            raise ParameterError(f"functional: `{name}` has no shape yet: call the module once on an example input")
    try:
        twin = copy.deepcopy(module, _copies(module))
    except Exception as error:
        raise ParameterError(f"functional: {_uncopyable(module)}: {error}") from error
    _refuse_held(module, twin)
    return twin


def _copies(module: nn.Module) -> dict[int, Any]:
    """Say what copy.deepcopy is to take for each tensor: itself for those with a slot, a detached copy for others."""
    kept = {id(tensor): tensor for tensor in itertools.chain(module.parameters(), module.buffers())}
    others = [value for sub in module.modules() for value in vars(sub).values() if isinstance(value, Tensor)]
    return {id(tensor): tensor.detach().clone() for tensor in others} | kept


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


def _uncopyable(module: nn.Module) -> str:
    for path, sub in module.named_modules():
        for name, value in vars(sub).items():
            if name in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                copy.deepcopy(value, _copies(module))
            except Exception:
                return f"cannot copy attribute `{f'{path}.{name}'.strip('.')}` ({type(value).__name__})"
    return "cannot copy the module"


def _refuse_held(module: nn.Module, twin: nn.Module) -> None:
    """Refuse a copy in which something still holds the original's modules or values: they would go on being used.

    Copying leaves functions as they are, and what they hold; and a value in a list has no slot.
    """
    originals = {id(sub) for sub in module.modules()}
    originals |= {id(value) for value in itertools.chain(module.parameters(), module.buffers())}
    for path, sub in twin.named_modules():
        for name, value in vars(sub).items():
            if name in ("_modules", "_parameters", "_buffers") or (name == "_flat_weights" and _is_recurrent(sub)):
                continue
            if any(id(held) in originals for held in _held(value, 4)):
                raise ImpureError(
                    f"functional: `{f'{path}.{name}'.strip('.')}` of {type(sub).__name__} holds the module itself or a "
                    "value of it, in a closure or a container, and would go on using it: make the function a method, "
                    "and reach values as attributes or in an nn.ParameterList"
                )


def _is_recurrent(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase)  # it renews that list by itself


def _held(value: Any, depth: int) -> Iterator[Any]:
    """List a value and what it holds, so many levels down."""
    yield value
    for inner in _contents(value) if depth else ():
        yield from _held(inner, depth - 1)


def _contents(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield value.__self__
    elif isinstance(value, FunctionType):
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        named = (value.__globals__.get(name) for name in value.__code__.co_names)
        yield from (found for found in named if isinstance(found, nn.Module | Tensor))
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a cell that was never filled
                continue
