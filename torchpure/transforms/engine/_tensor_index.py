"""`x[i]` for an integer tensor `i` of shape (), without turning it into a Python number, as torch does.

A traced program computes `i`, and under vmap each member has its own: there is no number to read.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_INTEGERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}


class TensorIndexing(TorchFunctionMode):
    """Reads and writes elements at computed indices by gather and scatter operations."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        if func is Tensor.__getitem__ and any(map(_is_index, _entries(args[1]))):
            return _read(args[0], _entries(args[1]))
        if func is Tensor.__setitem__ and any(map(_is_index, _entries(args[1]))):
            return _write(args[0], _entries(args[1]), args[2])
        return func(*args, **(kwargs or {}))


def _entries(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _is_index(entry: Any) -> bool:
    return isinstance(entry, Tensor) and entry.ndim == 0 and entry.dtype in _INTEGERS


def _read(x: Tensor, entries: tuple[Any, ...]) -> Tensor:
    """Take the slices first, then one element along each dimension with a computed index."""
    found = x[tuple(slice(None) if _is_index(entry) else entry for entry in entries)]
    for dim, index in reversed(_dims(x, entries)):
        found = found.movedim(dim, 0)[index.reshape(1).long()].squeeze(0)  # advanced indexing allows negative indices
    return found


def _write(x: Tensor, entries: tuple[Any, ...], value: Any) -> None:
    """Write to a view of the slices, at the computed indices."""
    indices = _dims(x, entries)
    part = x[tuple(slice(None) if _is_index(entry) else entry for entry in entries)]
    for number, (dim, _) in enumerate(indices):  # dimensions with an index first
        part = part.movedim(dim, number)
    value = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    part.index_put_(tuple(index.long() for _, index in indices), value)


def _dims(x: Tensor, entries: tuple[Any, ...]) -> list[tuple[int, Tensor]]:
    """List each computed index with its dimension in the sliced tensor."""
    taken = sum(entry is not None and entry is not Ellipsis for entry in entries)
    found, dim = [], 0
    for entry in entries:
        if _is_index(entry):
            found.append((dim, entry))
        if entry is Ellipsis:
            dim += x.ndim - taken
        elif not isinstance(entry, int) or isinstance(entry, bool):
            dim += 1
    return found
