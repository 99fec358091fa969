"""A product that is only added to something is added where that lies, as it is computed.

Law: accumulation changes no result by more than a rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

from torchpure.jit.native.ir import Buffer, Compute, Kernel, Load, Opaque, Statement, Store, c_type

_SUMS = {"{0} + {1}": ("", ""), "{0} - {1}": ("", "-")}  # signs of the arguments


class _Found(NamedTuple):
    """What a kernel does with a product."""

    kernel: Kernel  # the rest of it: what the product is added to is in place
    store: Store  # of the sum, into memory laid out as the product
    before: str  # C++ that computes the factor
    factor: str
    reads: list[Buffer]  # what that needs
    nonzero: bool  # whether it is known not to be zero


def accumulated(items: Sequence[Any], own: set[Buffer]) -> list[Any]:
    """Let products of matrices add to memory that a later kernel would add them to; `own` is nobody else's."""
    found = list(items)
    for product in [item for item in items if isinstance(item, Opaque) and item.adds]:
        target = product.written[0]
        readers = [item for item in found if target in item.reads()]
        if target not in own or len(readers) != 1 or not isinstance(readers[0], Kernel):
            continue
        reader, start = readers[0], found.index(product)
        between = found[start + 1 : found.index(reader) + 1]
        sums = None if _disturbed(product, between) else _sums(reader, target)
        if sums and product.nonzero <= sums.nonzero and not reader.writes() & {*reader.reads(), *sums.reads}:
            found[found.index(reader)] = sums.kernel
            found.insert(found.index(sums.kernel) + 1, _adding(product, sums))
            found.remove(product)
    return found


def _disturbed(product: Opaque, between: Sequence[Any]) -> bool:
    """Tell whether something between a product and its sum writes what the product reads."""
    return any(buffer in item.writes() for item in between for buffer in product.read)


def _adding(product: Opaque, sums: _Found) -> Opaque:
    assert product.adds
    store = sums.store
    text = f"{{ {sums.before}\n{product.adds(f'({store.buffer.name} + {store.offset})', sums.factor)} }}"
    return Opaque(text, (*product.read, *sums.reads, store.buffer), (store.buffer,))


def _sums(kernel: Kernel, target: Buffer) -> _Found | None:
    """Find the one sum of a kernel that takes a product; None if the product is used in another way."""
    if kernel.reduces:
        return None
    by_name = {s.name: s for s in kernel.inner if not isinstance(s, Store)}
    loads = [s for s in kernel.inner if isinstance(s, Load) and s.buffer is target]
    if len(loads) != 1 or prod(kernel.sizes) != target.size:
        return None
    load, name, factors, gone = loads[0], loads[0].name, list[str](), list[Statement](loads)
    while (user := _only_user(kernel, name)) is not None and isinstance(user, Compute):
        gone.append(user)
        if user.text == "{0} * {1}" and user.args[0] != user.args[1]:
            factors.append(user.args[user.args[0] == name])
        elif user.text == "-{0}":
            factors.append("-1")
        else:
            return _found(kernel, by_name, load, user, name, factors, gone)
        name = user.name
    return None


def _found(
    kernel: Kernel, by_name: dict[str, Any], load: Load, user: Compute, name: str, factors: list[str], gone: list[Any]
) -> _Found | None:
    signs, store = _SUMS.get(user.text), _only_user(kernel, user.name)
    if signs is None or not isinstance(store, Store) or user.args[0] == user.args[1]:
        return None
    side = user.args.index(name)
    fixed = _fixed(by_name, [factor for factor in factors if factor != "-1"])
    alike = store.coefs == load.coefs and store.buffer.dtype is load.buffer.dtype is user.dtype and load.offset == 0
    if not alike or fixed is None or store.buffer.apart or (side == 0 and user.text == "{0} - {1}"):
        return None
    c, other = c_type(user.dtype), user.args[1 - side]
    rest = [s for s in kernel.inner if s not in gone and s is not store]
    left = replace(kernel, inner=[*rest, replace(store, arg=other)])
    factor = " * ".join([f"{signs[side]}1", *(f"({factor})" for factor in factors)])
    reads = [s.buffer for s in fixed if isinstance(s, Load)]
    return _Found(left, store, "\n".join(_written(fixed)), f"({c})({factor})", reads, all(map(_nonzero, fixed)))


def _only_user(kernel: Kernel, name: str) -> Statement | None:
    users = [
        s
        for s in kernel.inner
        if (isinstance(s, Compute) and name in s.args)
        or (isinstance(s, Store) and s.arg == name)
        or any(name == index[0] for index in getattr(s, "indices", ()))
    ]
    return users[0] if len(users) == 1 else None


def _fixed(by_name: dict[str, Any], names: Sequence[str]) -> list[Load | Compute] | None:
    """Return the statements that compute names, in order; None if one depends on the turn."""
    found: list[Load | Compute] = []
    for name in names:
        statement = by_name[name]
        if isinstance(statement, Compute):
            before = _fixed(by_name, statement.args)
        else:
            before = [] if isinstance(statement, Load) and not any(statement.coefs) else None
        if before is None:
            return None
        found.extend(s for s in [*before, statement] if s not in found)
    return found


def _nonzero(statement: Load | Compute) -> bool:
    """Tell whether a statement is a number other than zero, written down."""
    return isinstance(statement, Compute) and "0x" in statement.text and "0x0.0p" not in statement.text


def _written(statements: Sequence[Load | Compute]) -> Iterator[str]:
    for s in statements:
        if isinstance(s, Load):
            yield f"const {c_type(s.buffer.dtype)} {s.name} = {s.buffer.name}[{s.offset}];"
        else:
            yield f"const {c_type(s.dtype)} {s.name} = ({c_type(s.dtype)})({s.text.format(*s.args)});"
