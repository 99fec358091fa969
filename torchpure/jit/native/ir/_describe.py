"""Kernels as text, one statement a line, for people who look at a program between two stages."""

from collections.abc import Iterator, Sequence
from typing import Any

from ._kernel import Compute, IndirectLoad, Iota, Kernel, Load, Opaque, Reduce, Statement, Store


def describe_items(items: Sequence[Any]) -> str:
    """Return the items of a scope as text."""
    return "\n".join(line for item in items for line in _item(item))


def _item(item: Any) -> Iterator[str]:
    if isinstance(item, Kernel):
        yield f"kernel {item.sizes}, {item.outer} outer"
        yield from (f"  {_statement(s)}" for s in (*item.body, *item.reductions))
        yield from (f"  after: {_statement(s)}" for s in item.epilogue)
    elif isinstance(item, Opaque):
        names = [", ".join(sorted(b.name for b in found)) or "nothing" for found in (item.reads(), item.writes())]
        yield f"C++ text, {item.text.count(chr(10)) + 1} lines: reads {names[0]}, writes {names[1]}"
    else:
        yield type(item).__name__.lower()
        for scope in item.scopes() if hasattr(item, "scopes") else ():
            yield from (f"  {line}" for inner in scope.items for line in _item(inner))


def _statement(s: Statement) -> str:
    if isinstance(s, Load | IndirectLoad):
        places = "".join(f" + {stride} * {name}" for name, _, stride in getattr(s, "indices", ()))
        return f"{s.name} = load {s.buffer.name} [{s.offset} + {s.loop_strides}{places}]"
    if isinstance(s, Store):
        return f"store {s.arg} to {s.buffer.name} [{s.offset} + {s.loop_strides}]"
    if isinstance(s, Reduce):
        return f"{s.name} = {s.kind} {s.arg}"
    if isinstance(s, Iota):
        return f"{s.name} = {s.start} + {s.step} * i{s.variable}"
    assert isinstance(s, Compute)
    return f"{s.name} = {s.text.format(*s.args)}"
