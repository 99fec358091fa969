"""Update a loop carry in place, if each new element depends on no other element of the old value.

Law: a loop computes the same, whether it updates its carry in place or in a second buffer.
"""

from collections import defaultdict
from collections.abc import Sequence
from math import prod
from typing import Any

from torchpure.jit.native.ir import Buffer, IndirectLoad, Kernel, Load, Opaque, Store
from torchpure.jit.native.lowering import CarrySlot


class Accesses:
    """Which items read and write a buffer, by position."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items, self.readers, self.writers = items, defaultdict[Buffer, list[int]](list), defaultdict(list)
        for position, item in enumerate(items):
            for buffer in item.reads():
                self.readers[buffer].append(position)
            for buffer in item.writes():
                self.writers[buffer].append(position)


def can_update_in_place(pair: CarrySlot, items: Sequence[Any]) -> bool:
    """Tell whether one iteration may write the next carry over the current one, in this order of items."""
    return can_overwrite(pair.now.buffer, pair.next.buffer, Accesses(items))


def can_overwrite(old: Buffer, new: Buffer, accesses: Accesses) -> bool:
    """Tell whether `new` may take the memory of `old`: nothing reads an old element after the new one is written."""
    writers, readers = accesses.writers.get(new, []), accesses.readers.get(old, [])
    if not writers or old in accesses.writers or min(accesses.readers.get(new, writers)) < writers[0]:
        return False
    both = [accesses.items[position] for position in writers if position in readers]
    if any(position > writers[0] and position not in writers for position in readers):
        return False
    if not both:
        return all(isinstance(accesses.items[position], Kernel | Opaque) for position in writers)
    kernels = [accesses.items[position] for position in writers]
    return (
        all(isinstance(kernel, Kernel) and _element_by_element(kernel, old, new) for kernel in kernels)
        and sum(prod(kernel.sizes) for kernel in kernels) == new.size
    )


def _element_by_element(kernel: Kernel, old: Buffer, new: Buffer) -> bool:
    """Tell whether a kernel reads each old element only before it writes the new one at the same address."""
    loads = [
        (position, s)
        for position, s in enumerate(kernel.body)
        if isinstance(s, Load | IndirectLoad) and s.buffer is old
    ]
    stores = [(position, s) for position, s in enumerate(kernel.body) if isinstance(s, Store) and s.buffer is new]
    later = any(isinstance(s, Load | IndirectLoad | Store) and s.buffer in {old, new} for s in kernel.epilogue)
    if len(stores) != 1 or later:
        return False
    store_position, store = stores[0]
    return all(
        isinstance(s, Load) and position < store_position and _address(s) == _address(store) for position, s in loads
    )


def eliminate_self_copies(items: Sequence[Any], carried: Sequence[CarrySlot]) -> list[Any]:
    """Remove kernels that would copy each element to itself."""
    same = {
        (pair.now.buffer, pair.next.buffer) for pair in carried if pair.now.buffer.offset == pair.next.buffer.offset
    }
    return [item for item in items if not (isinstance(item, Kernel) and _is_self_copy(item, same))]


def _is_self_copy(kernel: Kernel, same: set[tuple[Buffer, Buffer]]) -> bool:
    loads = {s.name: s for s in kernel.body if isinstance(s, Load)}
    stores = [s for s in kernel.body if isinstance(s, Store)]
    return not kernel.reduces and all(
        s.arg in loads and (loads[s.arg].buffer, s.buffer) in same and _address(loads[s.arg]) == _address(s)
        for s in stores
    )


def _address(statement: Load | Store) -> tuple[int, tuple[int, ...]]:
    return statement.offset, statement.loop_strides
