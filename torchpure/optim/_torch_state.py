"""States as torch.optim keeps them, and back: to go on with a run in either library."""

from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure.errors import StructureError

from ._adam import AdamState
from ._sgd import SgdState

# what holds one value for each parameter here -> its name in torch's state_dict
FIELDS: dict[type, dict[str, str]] = {
    AdamState: {"mean": "exp_avg", "square": "exp_avg_sq"},
    SgdState: {"momentum": "momentum_buffer"},
}


def to_torch(state: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Write a state into a torch optimizer's `state_dict()`: the result is for its `load_state_dict`.

    Parameters that cannot have a gradient here must not be in the torch optimizer; the order is that of the leaves. The
    options of the groups, such as the rate, stay those of `state_dict`.

    Law: `from_torch(to_torch(state, d), state) == state`.

    Raises:
        StructureError: the state holds no part that torch knows, or for another number of parameters.

    >>> from torchpure import optim
    >>> params = {"w": torch.ones(2)}
    >>> theirs = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    >>> theirs.load_state_dict(to_torch(optim.adam(1e-3).init(params), theirs.state_dict()))
    """
    known = _known("to_torch", state)
    columns = _columns(known)
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    count = len(next(iter(columns.values()))) if columns else len(numbers)
    if count != len(numbers):
        raise StructureError(f"to_torch: the state is for {count} parameters, the torch optimizer has {len(numbers)}")
    step = known.step.detach().to("cpu", torch.float32)
    entries = {
        number: {"step": step.clone()} | {name: values[place].detach().clone() for name, values in columns.items()}
        for place, number in enumerate(numbers)
    }
    return {"state": entries, "param_groups": state_dict["param_groups"]}


def from_torch(state_dict: dict[str, Any], state: Any) -> Any:
    """Read a torch optimizer's `state_dict()` into a state of this library, such as `optimizer.init(params)` makes.

    Raises:
        StructureError: the state holds no part that torch knows, or the dict lacks what that part needs.
    """
    known = _known("from_torch", state)
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    entries = [state_dict["state"].get(number, {}) for number in numbers]
    changed = {}
    for field, name in FIELDS[type(known)].items():
        leaves, structure = tree.flatten(getattr(known, field))
        if not leaves:
            continue
        missing = next((number for number, entry in zip(numbers, entries, strict=True) if name not in entry), None)
        if missing is not None or len(entries) != len(leaves):
            raise StructureError(
                f"from_torch: wanted `{name}` for {len(leaves)} parameters, the dict has it for "
                f"{sum(name in entry for entry in entries)}"
            )
        new = [entry[name].detach().clone().to(old) for entry, old in zip(entries, leaves, strict=True)]
        changed[field] = tree.unflatten(structure, new)
    steps = [entry["step"] for entry in entries if "step" in entry]
    if steps:
        changed["step"] = torch.as_tensor(steps[0]).to(known.step)
    return _replaced(state, known, known._replace(**changed))


def _columns(known: Any) -> dict[str, list[Tensor]]:
    parts = {name: tree.leaves(getattr(known, field)) for field, name in FIELDS[type(known)].items()}
    return {name: leaves for name, leaves in parts.items() if leaves}


def _known(who: str, state: Any) -> Any:
    """Find the one part of a state, which may be that of a chain, that torch knows."""
    found = list(_parts(state))
    if len(found) != 1:
        names = ", ".join(kind.__name__ for kind in FIELDS)
        raise StructureError(f"{who}: wanted a state with one of {names} in it, got {len(found)} of them")
    return found[0]


def _parts(state: Any) -> Any:
    if type(state) in FIELDS:
        yield state
    elif isinstance(state, tuple | list):
        for part in state:
            yield from _parts(part)
    elif isinstance(state, dict):
        yield from _parts(list(state.values()))


def _replaced(state: Any, old: Any, new: Any) -> Any:
    if state is old:
        return new
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*(_replaced(part, old, new) for part in state))
    if isinstance(state, tuple | list):
        return type(state)(_replaced(part, old, new) for part in state)
    if isinstance(state, dict):
        return {name: _replaced(part, old, new) for name, part in state.items()}
    return state
