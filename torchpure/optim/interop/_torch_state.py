"""Conversion of states from and to torch.optim, so that a run can continue in either library."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import T
from torchpure.errors import StructureError
from torchpure.optim.algorithms import Factored
from torchpure.optim.combinators import PartitionState

from ._torch_formats import TORCH_FORMATS, Entry


class _Scope(NamedTuple):
    """A state with one step count: the whole state, or the state of one optimizer of a partition."""

    parts: list[Any]  # those that torch has too
    places: list[int]  # of its parameters among all leaves, in ascending order
    step: Tensor


def to_torch(state: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Write a state into a torch optimizer's `state_dict()`; pass the result to its `load_state_dict`.

    The torch optimizer must have the differentiable leaves as its parameters, in the same order; of a `partition`,
    those that an optimizer with a state updates. Options of its groups, such as the learning rate, do not change. Where
    an optimizer has an option for torch's form, use it, as in `adafactor(form="torch")`.

    Law: `from_torch(to_torch(state, d), state) == state`.

    Raises:
        StructureError: the state has no part that torch has too, or it is for another number of parameters.

    >>> from torchpure import optim
    >>> params = {"w": torch.ones(2)}
    >>> theirs = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    >>> theirs.load_state_dict(to_torch(optim.adam(1e-3).init(params), theirs.state_dict()))
    """
    scopes = _find_scopes("to_torch", state)
    options = {number: group for group in state_dict["param_groups"] for number in group["params"]}
    places = sorted(place for scope in scopes for place in scope.places)
    if places and len(places) != len(options):
        raise StructureError(
            f"to_torch: the state is for {len(places)} parameters, the torch optimizer has {len(options)}"
        )
    number_at = dict(zip(places, options, strict=True)) if places else {}
    entries: dict[Any, Entry] = {}
    for scope in scopes:
        numbers = [number_at[place] for place in scope.places] if places else list(options)
        entries |= _encode(scope, {number: options[number] for number in numbers})
    return {
        "state": {number: entries[number] for number in options if number in entries},
        "param_groups": state_dict["param_groups"],
    }


def _encode(scope: _Scope, options: dict[Any, Entry]) -> dict[Any, Entry]:
    """Return torch's entries for the parameters of one scope."""
    step = scope.step.detach().to("cpu", torch.float32)
    entries: list[Entry] = [{"step": step.clone()} for _ in options]
    for part in scope.parts:
        torch_format = TORCH_FORMATS[type(part)]
        for field, name in torch_format.fields.items():
            for entry, value in zip(entries, _values(getattr(part, field)).values(), strict=False):
                entry[name] = tree.map(lambda leaf: leaf.detach().clone(), value)
        for field, name in torch_format.numbers.items():
            entries = [entry | {name: getattr(part, field).detach().to("cpu", torch.float32)} for entry in entries]
        groups = options.values()
        entries = [torch_format.encode(entry, group, step) for entry, group in zip(entries, groups, strict=True)]
    return dict(zip(options, entries, strict=True))


def from_torch(state_dict: dict[str, Any], state: T) -> T:
    """Read a torch optimizer's `state_dict()` into the state that `optimizer.init(params)` makes.

    A parameter without an entry in the dict keeps its part of the state. torch counts the steps of each parameter, a
    state those of all; a `partition` has a count for each of its optimizers.

    Raises:
        StructureError: the state has no part that torch has too, the dict lacks an entry of that part, or parameters of
            one optimizer differ in their number of steps.

    >>> from torchpure import optim
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> theirs = torch.optim.Adam([weight])
    >>> weight.sum().backward()
    >>> theirs.step()
    >>> state = optim.adam(1e-3).init([weight.detach()])
    >>> from_torch(theirs.state_dict(), state).mean
    [tensor([0.1000, 0.1000])]
    """
    scopes = _find_scopes("from_torch", state)
    places = sorted(place for scope in scopes for place in scope.places)
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    if places and len(places) != len(numbers):  # torch may have frozen parameters, which have no entry
        numbers = [number for number in numbers if state_dict["state"].get(number)]
    if places and len(places) != len(numbers):
        _refuse_entries(scopes[0].parts[0], len(places), len(numbers))
    entries = [state_dict["state"].get(number, {}) for number in numbers]
    if places and not any(entries):
        _refuse_entries(scopes[0].parts[0], len(places), 0)
    entry_at = dict(zip(places, entries, strict=True)) if places else dict(enumerate(entries))
    last_step, inner_states = _largest_step(entries), []

    def read(inner: Any) -> Any:
        scope = next((scope for scope in scopes if any(part is scope.parts[0] for part in _iter_parts(inner))), None)
        own = {place: entry_at[place] for place in scope.places} if scope and places else entry_at
        new = _set_steps(inner, last_step) if scope is None else _read_scope(scope, own, inner)
        inner_states.append(new)
        return new

    _map_scopes(state, read)
    new_states = iter(inner_states)
    return _map_scopes(_set_steps(state, last_step), lambda inner: next(new_states))


def _read_scope(scope: _Scope, entries: dict[int, Entry], state: Any) -> Any:
    """Read the entries of one scope into its state."""
    steps = {float(entry["step"]) if "step" in entry else 0.0 for entry in entries.values()}
    if len(steps) > 1 and any(TORCH_FORMATS[type(part)].counts for part in scope.parts):
        counts = ", ".join(f"{step:g}" for step in sorted(steps))
        raise StructureError(
            f"from_torch: the parameters have {counts} steps, and a state has one step count for all of them: give "
            "each number of steps an optimizer of its own, as in partition({'w': adam(0.1), 'u': adam(0.1)})"
        )
    ids = {id(part) for part in scope.parts}

    def changed(part: Any) -> Any:
        if id(part) not in ids:
            return part
        decode = TORCH_FORMATS[type(part)].decode
        return part._replace(**_read(part, {place: decode(dict(entry)) for place, entry in entries.items() if entry}))

    return _set_steps(_map_parts(state, changed), _largest_step(list(entries.values())))


def _read(part: Any, entries: dict[int, Entry]) -> dict[str, Any]:
    """Read the fields of one part from torch's entries."""
    torch_format, changed = TORCH_FORMATS[type(part)], {}
    for field, name in torch_format.fields.items():
        olds = _values(getattr(part, field))
        if not olds:
            continue
        have = sum(name in entry for entry in entries.values())
        if have != len(entries):
            _refuse_entries(part, len(olds), have)
        values = {place: entries[place][name] if place in entries else old for place, old in olds.items()}
        leaves, structure = tree.flatten(getattr(part, field))
        news = [leaf for value in values.values() for leaf in tree.leaves(value)]
        changed[field] = tree.unflatten(
            structure, [new.detach().clone().to(old) for new, old in zip(news, leaves, strict=True)]
        )
    for field, name in torch_format.numbers.items():
        old = getattr(part, field)
        found = (torch.as_tensor(entry[name]).to(old, copy=True) for entry in entries.values() if name in entry)
        changed[field] = next(found, old)
    return changed


def _refuse_entries(part: Any, wanted: int, have: int) -> NoReturn:
    name = next(iter(TORCH_FORMATS[type(part)].fields.values()))
    raise StructureError(f"from_torch: wanted `{name}` for {wanted} parameters, the dict has it for {have}")


def _find_scopes(caller: str, state: Any) -> list[_Scope]:
    """Find the scopes of a state that have a part that torch has too.

    Raises:
        StructureError: there is none, or a scope has two parts of a kind.
    """
    inner: list[Any] = []
    _map_scopes(state, lambda part: (inner.append(part), part)[1])
    scopes = [scope for part in inner if (scope := _scope(caller, part)) is not None]
    with_values = [scope for scope in scopes if scope.places]
    if not scopes:
        _refuse_parts(caller, 0)
    return with_values or scopes[:1]


def _scope(caller: str, state: Any) -> _Scope | None:
    known = list(_iter_parts(state))
    parts = [part for part in known if _places(part)] or known[:1]
    if len({type(part) for part in parts}) < len(parts):
        _refuse_parts(caller, len(parts))
    if not parts:
        return None
    return _Scope(parts, sorted({place for part in parts for place in _places(part)}), _step(state))


def _refuse_parts(caller: str, number: int) -> NoReturn:
    names = ", ".join(kind.__name__ for kind in TORCH_FORMATS)
    raise StructureError(f"{caller}: wanted a state with one of {names} in it, got {number} of them")


def _places(part: Any) -> list[int]:
    """List the places of a part's parameters among all leaves."""
    return sorted({place for field in TORCH_FORMATS[type(part)].fields for place in _values(getattr(part, field))})


def _values(node: Any) -> dict[int, Any]:
    """Return the value of each parameter by its place: a tensor, or the factors of a matrix."""
    return {place: value for place, value in enumerate(_iter_places(node)) if value is not None}


def _iter_places(node: Any) -> Iterator[Any]:
    inner = None if isinstance(node, Tensor | Factored) or node is None else tree.children(node)
    if inner is None:
        yield node
    else:
        for child in inner.values():
            yield from _iter_places(child)


def _iter_parts(state: Any) -> Iterator[Any]:
    if type(state) in TORCH_FORMATS:
        yield state
    elif isinstance(state, tuple | list):
        for part in state:
            yield from _iter_parts(part)
    elif isinstance(state, dict):
        yield from _iter_parts(list(state.values()))


def _largest_step(entries: list[Entry]) -> Tensor | None:
    steps = [torch.as_tensor(entry["step"]) for entry in entries if "step" in entry]
    if not steps and any(entry.get("momentum_buffer") is not None for entry in entries):
        return torch.ones(())  # torch's SGD counts no steps; it has taken one at least, which dampening asks for
    return max(steps, key=float) if steps else None


def _set_steps(state: Any, step: Tensor | None) -> Any:
    if step is None:
        return state
    return _map_parts(
        state, lambda part: part._replace(step=step.to(part.step, copy=True)) if _has_step(part) else part
    )


def _step(state: Any) -> Tensor:
    """Return the first step count in a state; 1 if there is none."""
    steps = []
    _map_parts(state, lambda part: (steps.append(part.step) if _has_step(part) else None, part)[1])
    return steps[0] if steps else torch.tensor(1.0)


def _has_step(part: Any) -> bool:
    return isinstance(getattr(part, "step", None), Tensor)


def _map_scopes(state: Any, change: Callable[[Any], Any]) -> Any:
    """Apply `change` to each inner state of the partitions in a state, or without a partition to the whole state."""
    if not _has_partition(state):
        return change(state)
    if isinstance(state, PartitionState):
        return PartitionState({name: _map_scopes(part, change) for name, part in state.inner_states.items()})
    if isinstance(state, dict):
        return {name: _map_scopes(part, change) if _has_partition(part) else part for name, part in state.items()}
    parts = [_map_scopes(part, change) if _has_partition(part) else part for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)


def _has_partition(state: Any) -> bool:
    if isinstance(state, PartitionState):
        return True
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    return any(map(_has_partition, inner))


def _map_parts(state: Any, change: Callable[[Any], Any]) -> Any:
    """Apply `change` to each named tuple of a state, the outer ones first."""
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        state = change(state)
        return type(state)(*(_map_parts(part, change) for part in state))
    if isinstance(state, tuple | list):
        return type(state)(_map_parts(part, change) for part in state)
    if isinstance(state, dict):
        return {name: _map_parts(part, change) for name, part in state.items()}
    return state
