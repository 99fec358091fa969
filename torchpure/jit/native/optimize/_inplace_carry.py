"""Update a loop carry in place, if each new element depends on no other element of the old value.

Law: a loop computes the same, whether it updates its carry in place or in a second buffer.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from torchpure.jit.native.ir import Buffer, IndirectLoad, Kernel, Load, Opaque, Store
from torchpure.jit.native.lowering import CarrySlot


def can_update_in_place(pair: CarrySlot, items: Sequence[Any]) -> bool:
    """Tell whether one iteration may write the next carry over the current one, in this order of items."""
    current, next_buffer = pair.now.buffer, pair.next.buffer
    writers = [position for position, item in enumerate(items) if next_buffer in item.writes()]
    readers = [position for position, item in enumerate(items) if current in item.reads()]
    if (
        not writers
        or any(current in item.writes() for item in items)
        or any(next_buffer in i.reads() for i in items[: writers[0]])
    ):
        return False
    first = items[writers[0]]
    if any(position > writers[0] for position in readers) or not all(
        isinstance(items[w], Kernel | Opaque) for w in writers
    ):
        return False
    return writers[0] not in readers or (isinstance(first, Kernel) and _element_by_element(first, current, next_buffer))


def _element_by_element(kernel: Kernel, current: Buffer, next_buffer: Buffer) -> bool:
    """Tell whether a kernel reads each old element only before it writes the new one at the same address."""
    if kernel.reduces:
        return False
    loads = [
        (position, s)
        for position, s in enumerate(kernel.body)
        if isinstance(s, Load | IndirectLoad) and s.buffer is current
    ]
    stores = [
        (position, s) for position, s in enumerate(kernel.body) if isinstance(s, Store) and s.buffer is next_buffer
    ]
    if len(stores) != 1 or prod(kernel.sizes) != next_buffer.size:
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
