"""A pool of private copies of a module, with slots for parameters and buffers.

A call takes a free copy (or makes one), fills its slots, runs it, resets it and gives it back. So calls may nest and
run in several threads, and the user's module does not change. Later changes of that module have no effect here.
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

from ._hidden_state import has_hidden_state
from ._never_draws import names_rand_like, never_draws
from ._parameter_trees import in_module_order
from ._pure_layers import WithBuffers, has_impure_layers, purify_layers

Slot = tuple[
    dict[str, Any], str, int
]  # a submodule's dict (`_parameters` or `_buffers`), the name in it, the index of the value


class Skeleton(NamedTuple):
    """A private copy of a module, and the slots for its values."""

    module: nn.Module
    parameters: list[Slot]
    buffers: list[Slot]
    working_buffers: list[Tensor]  # clones of the buffers; a pure call leaves them unchanged


class NamedTensors:
    """The parameters, or the buffers, of a module: names, shapes and initial values."""

    __slots__ = ("_aliases", "_owner", "_shapes", "names", "tensors")

    def __init__(self, owner: str, unique: Mapping[str, Tensor], with_duplicates: Mapping[str, Tensor]) -> None:
        canonical = {id(tensor): name for name, tensor in unique.items()}
        self._owner = owner
        self._aliases = {name: canonical[id(tensor)] for name, tensor in with_duplicates.items() if name not in unique}
        self.names = list(unique)
        self.tensors = [tensor.detach().clone() for tensor in unique.values()]
        self._shapes = [tensor.shape for tensor in self.tensors]

    def clones(self) -> list[Tensor]:
        """Clone the initial values."""
        return [tensor.clone() for tensor in self.tensors]

    def as_dict(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return values as a dict in the module's order; raise ParameterError when they do not fit."""
        return dict(zip(self.names, self.match(found), strict=True))

    def match(self, given: Params) -> list[Tensor]:
        """List values in the module's order; raise ParameterError when they do not fit."""
        return in_module_order(given, self.names, self._shapes, self._aliases, self._owner)


class Pool:
    """The free copies of one module. `take` and `put_back` are atomic, so threads may share a pool."""

    __slots__ = (
        "_free", "_keep", "_modes", "buffers", "compilable", "init_checked", "names_rand_like",
        "never_draws", "parameters", "template", "trainable",
    )  # fmt: skip

    def __init__(
        self, template: nn.Module, parameters: NamedTensors, buffers: NamedTensors, trainable: tuple[str, ...]
    ) -> None:
        self.parameters, self.buffers, self.trainable = parameters, buffers, trainable
        parameter_slots, buffer_slots = _slots(template)
        fill(parameter_slots, parameters.tensors)
        fill(buffer_slots, buffers.tensors)
        self.template = template  # copied, or traced by torch.compile; never called
        self.compilable = WithBuffers(
            purify_layers(_private_copy(template)) if has_impure_layers(template) else template
        )
        self.never_draws = never_draws(template)
        self.names_rand_like = names_rand_like(template)
        self.init_checked = False  # True after a check that `init` refills every parameter
        self._modes: dict[bool, Pool] = {}
        self._free: list[Skeleton] = []
        # a copy with hidden state is dropped: the next call must not see it
        self._keep: Callable[[Skeleton], None] = _drop if has_hidden_state(template) else self._free.append

    def in_mode(self, train: bool | None) -> "Pool":
        """Return the pool of this module in training or evaluation mode; None returns the pool itself."""
        if train is None:
            return self
        if not isinstance(train, bool):
            raise TypeError(f"apply: train must be True, False or None, got {train!r}")
        if train not in self._modes:
            copied = _private_copy(self.template).train(train)
            self._modes.setdefault(train, Pool(copied, self.parameters, self.buffers, self.trainable))
        return self._modes[train]

    def make(self) -> Skeleton:
        """Copy the template."""
        with torch.inference_mode(False):
            copied = _private_copy(self.template)
            working_buffers = self.buffers.clones()
        parameters, buffers = _slots(copied)
        fill(buffers, working_buffers)
        return Skeleton(copied, parameters, buffers, working_buffers)

    def take(self) -> Skeleton:
        """Return a copy that no other call uses."""
        try:
            return self._free.pop()
        except IndexError:
            skeleton = self.make()
            purify_layers(skeleton.module)
            return skeleton

    def put_back(self, skeleton: Skeleton) -> None:
        """Take a copy back after its call, with the initial parameters and its own buffers."""
        fill(skeleton.parameters, self.parameters.tensors)
        fill(skeleton.buffers, skeleton.working_buffers)
        self._keep(skeleton)

    def changed_buffers(self, skeleton: Skeleton) -> list[str]:
        """Name the buffers that a call has changed."""
        return [
            self.buffers.names[number]
            for holder, name, number in skeleton.buffers
            if holder[name] is not skeleton.working_buffers[number] or skeleton.working_buffers[number]._version
        ]


def pool_of(module: nn.Module) -> Pool:
    """Make the pool of a user's module, which is neither kept nor changed.

    Raises:
        ParameterError: an attribute cannot be copied, a parameter is not initialised yet, or it has a hook.
        ImpureError: the module holds a generator, or a closure or a container in it holds the module's values.
    """
    _refuse_generators(module)
    _refuse_hooks_of_parameters(module)
    owner = type(module).__name__
    copied = _private_copy(module)
    all_parameters = dict(copied.named_parameters(remove_duplicate=False))
    all_buffers = dict(copied.named_buffers(remove_duplicate=False))
    parameters = NamedTensors(f"{owner}: parameters", dict(copied.named_parameters()), all_parameters)
    buffers = NamedTensors(f"{owner}: buffers", dict(copied.named_buffers()), all_buffers)
    trainable = tuple(name for name, value in copied.named_parameters() if value.requires_grad)
    return Pool(copied, parameters, buffers, trainable)


def _refuse_generators(module: nn.Module) -> None:
    for path, sub in module.named_modules():
        for name, value in vars(sub).items():
            if isinstance(value, torch.Generator):
                raise ImpureError(
                    f"functional: `{f'{path}.{name}'.strip('.')}` is a generator, which every draw changes: draw "
                    "without it, and the numbers come from the key of the call"
                )


def _refuse_hooks_of_parameters(module: nn.Module) -> None:
    for name, value in module.named_parameters():
        if value._backward_hooks or value._post_accumulate_grad_hooks:
            raise ParameterError(
                f"functional: parameter `{name}` has a hook on its gradient, which the values that a call is given do "
                "not have: remove the hook, and change the gradients that grad returns"
            )


def _drop(skeleton: Skeleton) -> None:
    """Let a copy be freed."""


def _private_copy(module: nn.Module) -> nn.Module:
    """Copy a module, but share its parameters and buffers.

    Raises:
        ParameterError: an attribute cannot be copied, or a parameter is not initialised yet.
        ImpureError: a function or a container in the module holds the original's values.
    """
    for name, value in itertools.chain(module.named_parameters(), module.named_buffers()):
        if torch.nn.parameter.is_lazy(value):
            raise ParameterError(f"functional: `{name}` has no shape yet: call the module once on an example input")
        if value.is_nested and value.layout is torch.strided:
            raise ParameterError(
                f"functional: `{name}` is a nested tensor without a shape: make it with layout=torch.jagged, or pad it"
            )
    try:
        copied = copy.deepcopy(module, _copy_memo(module))
    except Exception as error:
        raise ParameterError(f"functional: {_uncopyable(module)}: {error}") from error
    _refuse_shared_values(module, copied)
    return copied


def _copy_memo(module: nn.Module) -> dict[int, Any]:
    """Return the memo for copy.deepcopy: parameters and buffers stay themselves, other tensors are cloned."""
    kept = {id(tensor): tensor for tensor in itertools.chain(module.parameters(), module.buffers())}
    others = [value for sub in module.modules() for value in vars(sub).values() if isinstance(value, Tensor)]
    return {id(tensor): tensor.detach().clone() for tensor in others} | kept


def _slots(module: nn.Module) -> tuple[list[Slot], list[Slot]]:
    """List the slots of the parameters and of the buffers; a tied value has several slots."""
    parameters = {id(value): number for number, value in enumerate(module.parameters())}
    buffers = {id(value): number for number, value in enumerate(module.buffers())}
    subs = list(module.modules())
    return (
        [(sub._parameters, name, parameters[id(value)]) for sub in subs for name, value in _present(sub._parameters)],
        [(sub._buffers, name, buffers[id(value)]) for sub in subs for name, value in _present(sub._buffers)],
    )


def fill(slots: list[Slot], values: Sequence[Tensor]) -> None:
    """Put values into their slots."""
    for holder, name, number in slots:
        holder[name] = values[number]


def _present(values: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in values.items() if value is not None)


def _uncopyable(module: nn.Module) -> str:
    for path, sub in module.named_modules():
        for name, value in vars(sub).items():
            if name in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                copy.deepcopy(value, _copy_memo(module))
            except Exception:
                return f"cannot copy attribute `{f'{path}.{name}'.strip('.')}` ({type(value).__name__})"
    return "cannot copy the module"


def _refuse_shared_values(module: nn.Module, copied: nn.Module) -> None:
    """Refuse a copy that still holds modules or values of the original, because it would go on using them.

    deepcopy does not copy functions or what they hold, and a value in a list has no slot.
    """
    originals = {id(sub) for sub in module.modules()}
    originals |= {id(value) for value in itertools.chain(module.parameters(), module.buffers())}
    for path, sub in copied.named_modules():
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
    return isinstance(module, nn.RNNBase)  # its forward rebuilds that list when the weights were replaced


def _held(value: Any, depth: int) -> Iterator[Any]:
    """Yield a value and what it holds, down to `depth` levels."""
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
        as_dict = (value.__globals__.get(name) for name in value.__code__.co_names)
        yield from (found for found in as_dict if isinstance(found, nn.Module | Tensor))
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a cell that was never filled
                continue
