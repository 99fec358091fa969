"""Places that a traced program computes: `x[i]` for a tensor `i` of shape (), which torch would read as a number."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_INTEGERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}


class Indexing(TorchFunctionMode):
    """Reads and writes at computed places with operations of the program."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        if func is Tensor.__getitem__ and any(map(_is_place, _entries(args[1]))):
            return _read(args[0], _entries(args[1]))
        if func is Tensor.__setitem__ and any(map(_is_place, _entries(args[1]))):
            return _write(args[0], _entries(args[1]), args[2])
        return func(*args, **(kwargs or {}))


def _entries(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _is_place(entry: Any) -> bool:
    return isinstance(entry, Tensor) and entry.ndim == 0 and entry.dtype in _INTEGERS


def _read(x: Tensor, entries: tuple[Any, ...]) -> Tensor:
    """Take slices first, then one place along each dimension that is left for it."""
    found = x[tuple(slice(None) if _is_place(entry) else entry for entry in entries)]
    for dim, place in reversed(_dims(x, entries)):
        found = found.movedim(dim, 0)[place.reshape(1).long()].squeeze(0)  # which, as here, may count from the end
    return found


def _write(x: Tensor, entries: tuple[Any, ...], value: Any) -> None:
    """Write through views of the slices, each element of which lies at a computed place."""
    places = _dims(x, entries)
    part = x[tuple(slice(None) if _is_place(entry) else entry for entry in entries)]
    for number, (dim, _) in enumerate(places):  # these dimensions first
        part = part.movedim(dim, number)
    value = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    part.index_put_(tuple(place.long() for _, place in places), value)


def _dims(x: Tensor, entries: tuple[Any, ...]) -> list[tuple[int, Tensor]]:
    """List, with each computed place, the dimension that is its own once the rest has been sliced."""
    taken = sum(entry is not None and entry is not Ellipsis for entry in entries)
    found, dim = [], 0
    for entry in entries:
        if _is_place(entry):
            found.append((dim, entry))
        if entry is Ellipsis:
            dim += x.ndim - taken
        elif not isinstance(entry, int) or isinstance(entry, bool):
            dim += 1
    return found
