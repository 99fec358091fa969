"""States as torch.optim keeps them, and back: to go on with a run in either library."""

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

Entry = dict[str, Any]  # what torch keeps for one parameter


def _same(entry: Entry, *rest: Any) -> Entry:
    return entry


class _Form(NamedTuple):
    """How torch calls the parts of a state, and what else has to be done to an entry in either direction."""

    fields: dict[str, str]  # what holds one value for each parameter here -> its name there
    numbers: Mapping[str, str] = MappingProxyType({})  # what is one number here, and one for each parameter there
    there: Callable[[Entry, Entry, Tensor], Entry] = _same  # (entry, options of the group, step)
    back: Callable[[Entry], Entry] = _same


def _negated(entry: Entry, *rest: Any) -> Entry:
    # here the last update, there the last gradient: only the sign is ever used
    return entry | {"prev": -entry["prev"]}


def _with_step_sizes(entry: Entry, group: Entry, step: Tensor) -> Entry:
    eta = group["lr"] / (1 + group["lambd"] * group["lr"] * step) ** group["alpha"]
    mu = 1 / (step - group["t0"]).clamp(min=1)
    return entry | {"eta": eta.to(torch.float32), "mu": mu.to(torch.float32)}


def _unfolded(entry: Entry, *rest: Any) -> Entry:
    square = entry.pop("square")
    if isinstance(square, Factored):
        return entry | {"row_var": square.rows.unsqueeze(-1), "col_var": square.columns.unsqueeze(-2)}
    return entry | {"variance": square}


def _folded(entry: Entry) -> Entry:
    if "row_var" not in entry:
        return entry | ({"square": entry["variance"]} if "variance" in entry else {})
    return entry | {"square": Factored(entry["row_var"].squeeze(-1), entry["col_var"].squeeze(-2))}


FORMS: dict[type, _Form] = {
    AdadeltaState: _Form({"square": "square_avg", "change": "acc_delta"}),
    AdamState: _Form({"mean": "exp_avg", "square": "exp_avg_sq"}),
    AdamaxState: _Form({"mean": "exp_avg", "largest": "exp_inf"}),
    AmsgradState: _Form({"mean": "exp_avg", "square": "exp_avg_sq", "largest": "max_exp_avg_sq"}),
    AsgdState: _Form({"average": "ax"}, there=_with_step_sizes),
    FactoredState: _Form({"square": "square"}, there=_unfolded, back=_folded),
    MuonState: _Form({"mean": "momentum_buffer"}),
    NadamState: _Form({"mean": "exp_avg", "square": "exp_avg_sq"}, {"product": "mu_product"}),
    RadamState: _Form({"mean": "exp_avg", "square": "exp_avg_sq"}),
    RmsState: _Form({"mean": "grad_avg", "square": "square_avg"}),
    RpropState: _Form({"size": "step_size", "last": "prev"}, there=_negated, back=_negated),
    RssState: _Form({"total": "sum"}),
    SgdState: _Form({"momentum": "momentum_buffer"}),
    TraceState: _Form({"trace": "momentum_buffer"}),
}


def to_torch(state: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Write a state into a torch optimizer's `state_dict()`: the result is for its `load_state_dict`.

    Parameters that cannot have a gradient here must not be in the torch optimizer; the order is that of the leaves. The
    options of the groups, such as the learning rate, stay those of `state_dict`; each optimizer is to be in torch's
    form, where it has one.

    Law: `from_torch(to_torch(state, d), state) == state`.

    Raises:
        StructureError: the state holds no part that torch knows, or for another number of parameters.

    >>> from torchpure import optim
    >>> params = {"w": torch.ones(2)}
    >>> theirs = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    >>> theirs.load_state_dict(to_torch(optim.adam(1e-3).init(params), theirs.state_dict()))
    """
    known = _known("to_torch", state)
    groups = [group for group in state_dict["param_groups"] for _ in group["params"]]
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    step = _step(state).detach().to("cpu", torch.float32)
    entries: list[Entry] = [{"step": step.clone()} for _ in numbers]
    for part in known:
        form = FORMS[type(part)]
        for field, name in form.fields.items():
            values = list(_values(getattr(part, field)))
            if values and len(values) != len(numbers):
                raise StructureError(
                    f"to_torch: the state is for {len(values)} parameters, the torch optimizer has {len(numbers)}"
                )
            for entry, value in zip(entries, values, strict=False):
                entry[name] = tree.map(lambda leaf: leaf.detach().clone(), value)
        for field, name in form.numbers.items():
            entries = [entry | {name: getattr(part, field).detach().to("cpu", torch.float32)} for entry in entries]
        entries = [form.there(entry, group, step) for entry, group in zip(entries, groups, strict=True)]
    return {"state": dict(zip(numbers, entries, strict=True)), "param_groups": state_dict["param_groups"]}


def from_torch(state_dict: dict[str, Any], state: T) -> T:
    """Read a torch optimizer's `state_dict()` into a state of this library, such as `optimizer.init(params)` makes.

    Raises:
        StructureError: the state holds no part that torch knows, or the dict lacks what that part needs.
    """
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    entries = [state_dict["state"].get(number, {}) for number in numbers]
    known = {id(part) for part in _known("from_torch", state)}
    steps = [entry["step"] for entry in entries if "step" in entry]

    def changed(part: Any) -> Any:
        if id(part) in known:
            form = FORMS[type(part)]
            part = part._replace(**_read(part, [form.back(dict(entry)) for entry in entries]))
        return (
            part._replace(step=torch.as_tensor(steps[0]).to(part.step, copy=True)) if steps and _counts(part) else part
        )

    return _rewritten(state, changed)


def _read(part: Any, entries: list[Entry]) -> dict[str, Any]:
    """Read the fields of one part."""
    form, changed = FORMS[type(part)], {}
    for field, name in form.fields.items():
        olds = list(_values(getattr(part, field)))
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
    for field, name in form.numbers.items():
        old = getattr(part, field)
        changed[field] = next(
            (torch.as_tensor(entry[name]).to(old, copy=True) for entry in entries if name in entry), old
        )
    return changed


def _values(node: Any) -> Iterator[Any]:
    """List what is held for each parameter: a tensor, or the factors of a matrix."""
    if isinstance(node, Tensor | Factored):
        yield node
    else:
        for child in (tree.children(node) or {}).values():
            yield from _values(child)


def _known(who: str, state: Any) -> list[Any]:
    """Find the parts of a state, which may be that of a chain, that torch knows and that hold something."""
    found = [
        part for part in _parts(state) if tree.leaves([getattr(part, field) for field in FORMS[type(part)].fields])
    ]
    found = found or list(_parts(state))[:1]
    kinds = [type(part) for part in found]
    if not found or len(set(kinds)) < len(kinds):
        names = ", ".join(kind.__name__ for kind in FORMS)
        raise StructureError(f"{who}: wanted a state with one of {names} in it, got {len(found)} of them")
    return found


def _parts(state: Any) -> Iterator[Any]:
    if type(state) in FORMS:
        yield state
    elif isinstance(state, tuple | list):
        for part in state:
            yield from _parts(part)
    elif isinstance(state, dict):
        yield from _parts(list(state.values()))


def _step(state: Any) -> Tensor:
    """Return the first count of steps in a state; 1 where nothing counts."""
    steps = []
    _rewritten(state, lambda part: (steps.append(part.step) if _counts(part) else None, part)[1])
    return steps[0] if steps else torch.tensor(1.0)


def _counts(part: Any) -> bool:
    return isinstance(getattr(part, "step", None), Tensor)


def _rewritten(state: Any, change: Callable[[Any], Any]) -> Any:
    """Change each named part of a state, the outer ones first."""
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        state = change(state)
        return type(state)(*(_rewritten(part, change) for part in state))
    if isinstance(state, tuple | list):
        return type(state)(_rewritten(part, change) for part in state)
    if isinstance(state, dict):
        return {name: _rewritten(part, change) for name, part in state.items()}
    return state
