"""Accumulate products in place: `c + a @ b` becomes one product that adds to the memory of `c`.

Law: accumulation changes no result by more than a rounding.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

from torchpure.jit.native.ir import Buffer, Compute, Kernel, Load, Opaque, Statement, Store, c_type

_SUM_SIGNS = {"{0} + {1}": ("", ""), "{0} - {1}": ("", "-")}  # per sum: the sign of each argument


class _ProductSum(NamedTuple):
    """A sum that takes a product: `other ± factor · product`."""

    kernel: Kernel  # the rest of the kernel, which stores `other`
    store: Store  # store of the sum; its layout is that of the product
    before: str  # C++ that computes the factor
    factor: str
    reads: list[Buffer]  # buffers that `before` reads
    nonzero_factor: bool  # the factor is a literal other than zero


def accumulate_products(items: Sequence[Any], exclusive: set[Buffer]) -> list[Any]:
    """Let matrix products add to the memory to which a later kernel would add them.

    Only products in `exclusive` buffers, which nothing outside the scope reads, are candidates.
    """
    found = list(items)
    readers_of = defaultdict[Buffer, list[Any]](list)
    _replace_readers(readers_of, [], items)
    for product in [item for item in items if isinstance(item, Opaque) and item.accumulate]:
        target = product.written_buffers[0]
        readers = readers_of[target]
        if target not in exclusive or len(readers) != 1 or not isinstance(readers[0], Kernel):
            continue
        reader, start = readers[0], found.index(product)
        between = found[start + 1 : found.index(reader) + 1]
        found_sum = None if _operands_change(product, between) else _find_sum(reader, target)
        if (
            found_sum
            and product.needs_nonzero_factor <= found_sum.nonzero_factor
            and not reader.writes() & {*reader.reads(), *found_sum.reads}
        ):
            accumulating = _accumulating_product(product, found_sum)
            found[found.index(reader)] = found_sum.kernel
            found.insert(found.index(found_sum.kernel) + 1, accumulating)
            found.remove(product)
            _replace_readers(readers_of, [reader, product], [found_sum.kernel, accumulating])
    return found


def _replace_readers(readers_of: dict[Buffer, list[Any]], old: Sequence[Any], new: Sequence[Any]) -> None:
    for item in old:
        for buffer in item.reads():
            readers_of[buffer].remove(item)
    for item in new:
        for buffer in item.reads():
            readers_of[buffer].append(item)


def _operands_change(product: Opaque, between: Sequence[Any]) -> bool:
    """Tell whether an item between a product and its sum writes what the product reads."""
    return any(buffer in item.writes() for item in between for buffer in product.read_buffers)


def _accumulating_product(product: Opaque, found_sum: _ProductSum) -> Opaque:
    assert product.accumulate
    store = found_sum.store
    text = (
        f"{{ {found_sum.before}\n{product.accumulate(f'({store.buffer.slot} + {store.offset})', found_sum.factor)} }}"
    )
    reads = (*product.read_buffers, *found_sum.reads, store.buffer)
    return Opaque(text, reads, (store.buffer,), count=product.count, cost=product.cost, tables=product.tables)


def _find_sum(kernel: Kernel, target: Buffer) -> _ProductSum | None:
    """Find the one sum of a kernel that takes the product; None if the kernel uses the product otherwise."""
    if kernel.reduces:
        return None
    by_name = {s.name: s for s in kernel.body if not isinstance(s, Store)}
    loads = [s for s in kernel.body if isinstance(s, Load) and s.buffer is target]
    if len(loads) != 1 or prod(kernel.sizes) != target.size:
        return None
    load, name, factors, removed = loads[0], loads[0].name, list[str](), list[Statement](loads)
    while (user := _only_user(kernel, name)) is not None and isinstance(user, Compute):
        removed.append(user)
        if user.text == "{0} * {1}" and user.args[0] != user.args[1]:
            factors.append(user.args[user.args[0] == name])
        elif user.text == "-{0}":
            factors.append("-1")
        else:
            return _match_sum(kernel, by_name, load, user, name, factors, removed)
        name = user.name
    return None


def _match_sum(
    kernel: Kernel,
    by_name: dict[str, Any],
    load: Load,
    user: Compute,
    name: str,
    factors: list[str],
    removed: list[Any],
) -> _ProductSum | None:
    signs, store = _SUM_SIGNS.get(user.text), _only_user(kernel, user.name)
    if signs is None or not isinstance(store, Store) or user.args[0] == user.args[1]:
        return None
    product_side = user.args.index(name)
    invariant = _invariant_statements(by_name, [factor for factor in factors if factor != "-1"])
    same_layout = (
        store.loop_strides == load.loop_strides
        and store.buffer.dtype is load.buffer.dtype is user.dtype
        and load.offset == 0
    )
    if (
        not same_layout
        or invariant is None
        or store.buffer.disjoint_writes
        or (product_side == 0 and user.text == "{0} - {1}")
    ):
        return None
    c, other = c_type(user.dtype), user.args[1 - product_side]
    rest = [s for s in kernel.body if s not in removed and s is not store]
    remainder = replace(kernel, body=[*rest, replace(store, arg=other)])
    factor = " * ".join([f"{signs[product_side]}1", *(f"({factor})" for factor in factors)])
    reads = [s.buffer for s in invariant if isinstance(s, Load)]
    return _ProductSum(
        remainder,
        store,
        "\n".join(_cpp_lines(invariant)),
        f"({c})({factor})",
        reads,
        all(map(_is_nonzero_literal, invariant)),
    )


def _only_user(kernel: Kernel, name: str) -> Statement | None:
    users = [
        s
        for s in kernel.body
        if (isinstance(s, Compute) and name in s.args)
        or (isinstance(s, Store) and s.arg == name)
        or any(name == index[0] for index in getattr(s, "indices", ()))
    ]
    return users[0] if len(users) == 1 else None


def _invariant_statements(by_name: dict[str, Any], names: Sequence[str]) -> list[Load | Compute] | None:
    """Return the statements that compute `names`, in order; None if one depends on a loop variable."""
    found: list[Load | Compute] = []
    for name in names:
        statement = by_name[name]
        if isinstance(statement, Compute):
            before = _invariant_statements(by_name, statement.args)
        else:
            before = [] if isinstance(statement, Load) and not any(statement.loop_strides) else None
        if before is None:
            return None
        found.extend(s for s in [*before, statement] if s not in found)
    return found


def _is_nonzero_literal(statement: Load | Compute) -> bool:
    """Tell whether a statement is a literal number other than zero."""
    return isinstance(statement, Compute) and "0x" in statement.text and "0x0.0p" not in statement.text


def _cpp_lines(statements: Sequence[Load | Compute]) -> Iterator[str]:
    for s in statements:
        if isinstance(s, Load):
            yield f"const {c_type(s.buffer.dtype)} {s.name} = {s.buffer.slot}[{s.offset}];"
        else:
            yield f"const {c_type(s.dtype)} {s.name} = ({c_type(s.dtype)})({s.text.format(*s.args)});"
