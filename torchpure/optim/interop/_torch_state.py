"""Conversion of states from and to torch.optim, so that a run can continue in either library."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import T
from torchpure.errors import StructureError
from torchpure.optim.algorithms import (
    AdadeltaState,
    AdamaxState,
    AdamState,
    AmsgradState,
    AsgdState,
    Factored,
    FactoredState,
    MuonState,
    NadamState,
    RadamState,
    RmsState,
    RpropState,
    RssState,
    SgdState,
)
from torchpure.optim.transformations import TraceState

Entry = dict[str, Any]  # torch's state of one parameter


def _same(entry: Entry, *rest: Any) -> Entry:
    return entry


class _TorchFormat(NamedTuple):
    """The names of a state's fields in torch, and how entries are converted in either direction."""

    fields: dict[str, str]  # our field with one value for each parameter -> torch's name
    numbers: Mapping[str, str] = MappingProxyType({})  # our field with one number, which torch has for each parameter
    encode: Callable[[Entry, Entry, Tensor], Entry] = _same  # (entry, options of the group, step) -> torch's entry
    decode: Callable[[Entry], Entry] = _same  # torch's entry -> entry


def _negate_last(entry: Entry, *rest: Any) -> Entry:
    # our state has the last update, torch's the last gradient; only the sign is used
    return entry | {"prev": -entry["prev"]}


def _add_step_sizes(entry: Entry, group: Entry, step: Tensor) -> Entry:
    eta = group["lr"] / (1 + group["lambd"] * group["lr"] * step) ** group["alpha"]
    mu = 1 / (step - group["t0"]).clamp(min=1)
    return entry | {"eta": eta.to(torch.float32), "mu": mu.to(torch.float32)}


def _encode_factored(entry: Entry, *rest: Any) -> Entry:
    square = entry.pop("square")
    if isinstance(square, Factored):
        return entry | {"row_var": square.rows.unsqueeze(-1), "col_var": square.columns.unsqueeze(-2)}
    return entry | {"variance": square}


def _decode_factored(entry: Entry) -> Entry:
    if "row_var" not in entry:
        return entry | ({"square": entry["variance"]} if "variance" in entry else {})
    return entry | {"square": Factored(entry["row_var"].squeeze(-1), entry["col_var"].squeeze(-2))}


TORCH_FORMATS: dict[type, _TorchFormat] = {
    AdadeltaState: _TorchFormat({"square": "square_avg", "change": "acc_delta"}),
    AdamState: _TorchFormat({"mean": "exp_avg", "square": "exp_avg_sq"}),
    AdamaxState: _TorchFormat({"mean": "exp_avg", "largest": "exp_inf"}),
    AmsgradState: _TorchFormat({"mean": "exp_avg", "square": "exp_avg_sq", "largest": "max_exp_avg_sq"}),
    AsgdState: _TorchFormat({"average": "ax"}, encode=_add_step_sizes),
    FactoredState: _TorchFormat({"square": "square"}, encode=_encode_factored, decode=_decode_factored),
    MuonState: _TorchFormat({"mean": "momentum_buffer"}),
    NadamState: _TorchFormat({"mean": "exp_avg", "square": "exp_avg_sq"}, {"product": "mu_product"}),
    RadamState: _TorchFormat({"mean": "exp_avg", "square": "exp_avg_sq"}),
    RmsState: _TorchFormat({"mean": "grad_avg", "square": "square_avg"}),
    RpropState: _TorchFormat({"size": "step_size", "last": "prev"}, encode=_negate_last, decode=_negate_last),
    RssState: _TorchFormat({"total": "sum"}),
    SgdState: _TorchFormat({"momentum": "momentum_buffer"}),
    TraceState: _TorchFormat({"trace": "momentum_buffer"}),
}


def to_torch(state: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Write a state into a torch optimizer's `state_dict()`; pass the result to its `load_state_dict`.

    The torch optimizer must have the differentiable leaves as its parameters, in the same order. Options of its groups,
    such as the learning rate, do not change. Where an optimizer has an
    option for torch's form, use it, as in `adafactor(form="torch")`.

    Law: `from_torch(to_torch(state, d), state) == state`.

    Raises:
        StructureError: the state has no part that torch has too, or it is for another number of parameters.

    >>> from torchpure import optim
    >>> params = {"w": torch.ones(2)}
    >>> theirs = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    >>> theirs.load_state_dict(to_torch(optim.adam(1e-3).init(params), theirs.state_dict()))
    """
    convertible = _convertible_parts("to_torch", state)
    groups = [group for group in state_dict["param_groups"] for _ in group["params"]]
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    step = _step(state).detach().to("cpu", torch.float32)
    entries: list[Entry] = [{"step": step.clone()} for _ in numbers]
    for part in convertible:
        torch_format = TORCH_FORMATS[type(part)]
        for field, name in torch_format.fields.items():
            values = list(_iter_values(getattr(part, field)))
            if values and len(values) != len(numbers):
                raise StructureError(
                    f"to_torch: the state is for {len(values)} parameters, the torch optimizer has {len(numbers)}"
                )
            for entry, value in zip(entries, values, strict=False):
                entry[name] = tree.map(lambda leaf: leaf.detach().clone(), value)
        for field, name in torch_format.numbers.items():
            entries = [entry | {name: getattr(part, field).detach().to("cpu", torch.float32)} for entry in entries]
        entries = [torch_format.encode(entry, group, step) for entry, group in zip(entries, groups, strict=True)]
    return {"state": dict(zip(numbers, entries, strict=True)), "param_groups": state_dict["param_groups"]}


def from_torch(state_dict: dict[str, Any], state: T) -> T:
    """Read a torch optimizer's `state_dict()` into a state of this library, such as that of `optimizer.init(params)`.

    Raises:
        StructureError: the state has no part that torch has too, or the dict lacks an entry of that part.
    """
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    entries = [state_dict["state"].get(number, {}) for number in numbers]
    convertible = {id(part) for part in _convertible_parts("from_torch", state)}
    steps = [entry["step"] for entry in entries if "step" in entry]

    def changed(part: Any) -> Any:
        if id(part) in convertible:
            torch_format = TORCH_FORMATS[type(part)]
            part = part._replace(**_read(part, [torch_format.decode(dict(entry)) for entry in entries]))
        return (
            part._replace(step=torch.as_tensor(steps[0]).to(part.step, copy=True))
            if steps and _has_step(part)
            else part
        )

    return _map_parts(state, changed)


def _read(part: Any, entries: list[Entry]) -> dict[str, Any]:
    """Read the fields of one part from torch's entries."""
    torch_format, changed = TORCH_FORMATS[type(part)], {}
    for field, name in torch_format.fields.items():
        olds = list(_iter_values(getattr(part, field)))
        if not olds:
            continue
        have = sum(name in entry for entry in entries)
        if have != len(entries) or len(entries) != len(olds):
            raise StructureError(f"from_torch: wanted `{name}` for {len(olds)} parameters, the dict has it for {have}")
        leaves, structure = tree.flatten(getattr(part, field))
        news = [leaf for entry in entries for leaf in tree.leaves(entry[name])]
        changed[field] = tree.unflatten(
            structure, [new.detach().clone().to(old) for new, old in zip(news, leaves, strict=True)]
        )
    for field, name in torch_format.numbers.items():
        old = getattr(part, field)
        changed[field] = next(
            (torch.as_tensor(entry[name]).to(old, copy=True) for entry in entries if name in entry), old
        )
    return changed


def _iter_values(node: Any) -> Iterator[Any]:
    """List the value of each parameter: a tensor, or the factors of a matrix."""
    if isinstance(node, Tensor | Factored):
        yield node
    else:
        for child in (tree.children(node) or {}).values():
            yield from _iter_values(child)


def _convertible_parts(caller: str, state: Any) -> list[Any]:
    """Find the parts of a state that torch has too and that are not empty. The state may be that of a chain."""
    found = [
        part
        for part in _iter_parts(state)
        if tree.leaves([getattr(part, field) for field in TORCH_FORMATS[type(part)].fields])
    ]
    found = found or list(_iter_parts(state))[:1]
    kinds = [type(part) for part in found]
    if not found or len(set(kinds)) < len(kinds):
        names = ", ".join(kind.__name__ for kind in TORCH_FORMATS)
        raise StructureError(f"{caller}: wanted a state with one of {names} in it, got {len(found)} of them")
    return found


def _iter_parts(state: Any) -> Iterator[Any]:
    if type(state) in TORCH_FORMATS:
        yield state
    elif isinstance(state, tuple | list):
        for part in state:
            yield from _iter_parts(part)
    elif isinstance(state, dict):
        yield from _iter_parts(list(state.values()))


def _step(state: Any) -> Tensor:
    """Return the first step count in a state; 1 if there is none."""
    steps = []
    _map_parts(state, lambda part: (steps.append(part.step) if _has_step(part) else None, part)[1])
    return steps[0] if steps else torch.tensor(1.0)


def _has_step(part: Any) -> bool:
    return isinstance(getattr(part, "step", None), Tensor)


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
