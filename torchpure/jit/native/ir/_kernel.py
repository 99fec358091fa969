"""A kernel: loops over a domain, and what one turn computes.

A domain has outer variables and, in a reduction, inner ones. Statements are in single assignment form; names are
unique in a whole program, so that kernels can be put together. Every address is affine in the variables.
"""

import re
from collections.abc import Callable, Sequence
from ctypes import c_float
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ._values import Buffer, Number, Value, View

LoopStrides = tuple[int, ...]  # elements that each variable of the domain moves an address by


@dataclass(frozen=True, slots=True)
class Load:
    """Read an element."""

    name: str
    buffer: Buffer
    offset: int
    loop_strides: LoopStrides


@dataclass(frozen=True, slots=True)
class IndirectLoad:
    """Read an element whose place other elements tell: `offset + Σ index·stride`, each index wrapped and checked."""

    name: str
    buffer: Buffer
    offset: int
    loop_strides: LoopStrides
    indices: tuple[tuple[str, int, int], ...]  # (name, size, stride)


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute a value of a dtype: a format of C++ with {0}, {1} … for other names."""

    name: str
    dtype: torch.dtype
    text: str
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Iota:
    """Compute `start + step·variable`."""

    name: str
    dtype: torch.dtype
    start: Any
    step: Any
    variable: int


@dataclass(frozen=True, slots=True)
class Reduce:
    """Fold a value over the inner variables."""

    name: str
    dtype: torch.dtype
    kind: str  # sum, prod, max, min, any, all
    arg: str


@dataclass(frozen=True, slots=True)
class Store:
    """Write an element."""

    buffer: Buffer
    offset: int
    loop_strides: LoopStrides
    arg: str


Statement = Load | IndirectLoad | Compute | Iota | Reduce | Store


@dataclass(eq=False, slots=True)
class Kernel:
    """Loops over `sizes`, of which the first `outer` are outer ones; three lists of statements."""

    sizes: tuple[int, ...]
    outer: int
    body: list[Statement] = field(default_factory=list)  # in every turn; without inner variables all is here
    reductions: list[Reduce] = field(default_factory=list)
    epilogue: list[Statement] = field(default_factory=list)  # once the inner loops are done

    @property
    def reduces(self) -> bool:
        """Tell whether there are inner variables."""
        return bool(self.reductions)

    def statements(self) -> list[Statement]:
        """List all statements."""
        return [*self.body, *self.reductions, *self.epilogue]

    def reads(self) -> set[Buffer]:
        """Return what is read."""
        return {s.buffer for s in self.statements() if isinstance(s, Load | IndirectLoad)}

    def writes(self) -> set[Buffer]:
        """Return what is written."""
        return {s.buffer for s in self.statements() if isinstance(s, Store)}


@dataclass(eq=False, slots=True)
class Opaque:
    """A piece of C++ of which only reads and writes are known."""

    text: str  # a buffer's name is its pointer
    read_buffers: tuple[Buffer, ...]
    written_buffers: tuple[Buffer, ...]
    accumulate: Callable[[str, str], str] | None = (
        None  # text that adds to the memory at a pointer instead, times a factor
    )
    needs_nonzero_factor: bool = False  # that text takes a factor of zero for nothing to add, be it zero times infinity

    def redirect(self, old: Buffer, new: Buffer) -> "Opaque":
        """Return the same with another buffer in the place of one that it writes."""
        text = re.sub(rf"\b{old.name}\b", new.name, self.text)
        return Opaque(
            text, self.read_buffers, tuple(new if buffer is old else buffer for buffer in self.written_buffers)
        )

    def reads(self) -> set[Buffer]:
        """Return what is read."""
        return set(self.read_buffers)

    def writes(self) -> set[Buffer]:
        """Return what is written."""
        return set(self.written_buffers)


def remap_variables(statement: Statement, mapping: Sequence[int], count: int) -> Statement:
    """Write a statement for a domain of `count` variables, in which variable i of its own is `mapping[i]`."""
    if isinstance(statement, Load | IndirectLoad | Store):
        loop_strides = [0] * count
        for own, stride in enumerate(statement.loop_strides):
            loop_strides[mapping[own]] = stride
        return replace(statement, loop_strides=tuple(loop_strides))
    if isinstance(statement, Iota):
        return replace(statement, variable=mapping[statement.variable])
    return statement


def rename_arguments(statement: Statement, names: dict[str, str]) -> Statement:
    """Write a statement with other names in the places of its arguments."""
    if isinstance(statement, Compute):
        return replace(statement, args=tuple(names.get(arg, arg) for arg in statement.args))
    if isinstance(statement, Reduce | Store):
        return replace(statement, arg=names.get(statement.arg, statement.arg))
    if isinstance(statement, IndirectLoad):
        return replace(statement, indices=tuple((names.get(n, n), size, step) for n, size, step in statement.indices))
    return statement


class NameGenerator:
    """Gives each value and each buffer of a program a name of its own."""

    def __init__(self) -> None:
        self._count = 0

    def new(self, letter: str) -> str:
        """Return a name that begins with this letter."""
        self._count += 1
        return f"{letter}{self._count}"


class KernelBuilder:
    """One kernel in the making: loads of whole values, computations, stores."""

    def __init__(self, names: NameGenerator, shape: Sequence[int], folded: Sequence[int] = ()) -> None:
        """Begin a kernel over a shape; the dimensions in `folded` are inner ones."""
        self._names = names
        dims = [dim for dim in range(len(shape)) if dim not in folded] + list(folded)
        kept = [dim for dim in dims if shape[dim] != 1]
        self._variable = {dim: i for i, dim in enumerate(kept)}
        self._rank = len(shape)
        self.kernel = Kernel(tuple(shape[dim] for dim in kept), sum(dim not in folded for dim in kept))
        self._statements = self.kernel.body

    def loop_strides(self, strides: Sequence[int], dims: Sequence[int] | None = None) -> LoopStrides:
        """Return the coefficients for strides, one a dimension of the shape (or for those dimensions alone)."""
        found = [0] * len(self.kernel.sizes)
        for dim, stride in zip(range(self._rank) if dims is None else dims, strides, strict=True):
            if dim in self._variable:
                found[self._variable[dim]] = stride
        return tuple(found)

    def load(self, value: Value, shape: Sequence[int]) -> str:
        """Load the element of a value broadcast to the whole shape."""
        if isinstance(value, Number):
            return self.number(value.value, value.dtype)
        strides = broadcast_strides(value, shape)
        name = self._names.new("v")
        self._statements.append(Load(name, value.buffer, value.offset, self.loop_strides(strides)))
        return name

    def indirect_load(self, view: View, indices: Sequence[tuple[str, int, int]], strides: Sequence[int]) -> str:
        """Load an element at computed places, and at `strides` of the domain."""
        name = self._names.new("v")
        self._statements.append(
            IndirectLoad(name, view.buffer, view.offset, self.loop_strides(strides), tuple(indices))
        )
        return name

    def number(self, value: Any, dtype: torch.dtype) -> str:
        """Write a number down."""
        return self.compute(dtype, literal(value, dtype))

    def compute(self, dtype: torch.dtype, text: str, *args: str) -> str:
        """Compute a value from others."""
        name = self._names.new("v")
        self._statements.append(Compute(name, dtype, text, args))
        return name

    def iota(self, dtype: torch.dtype, start: Any, step: Any, dim: int) -> str:
        """Compute start + step · (place in a dimension)."""
        if dim not in self._variable:
            return self.number(start, dtype)
        name = self._names.new("v")
        self._statements.append(Iota(name, dtype, start, step, self._variable[dim]))
        return name

    def reduce(self, dtype: torch.dtype, kind: str, arg: str) -> str:
        """Fold a value over the inner variables; what follows is computed once they are done."""
        if self.kernel.outer == len(self.kernel.sizes):  # they have one turn each
            return arg
        name = self._names.new("v")
        self.kernel.reductions.append(Reduce(name, dtype, kind, arg))
        self._statements = self.kernel.epilogue
        return name

    def store(self, view: View, arg: str, dims: Sequence[int] | None = None) -> None:
        """Store a value into a view, whose dimensions are those of the shape, or `dims`."""
        loop_strides = self.loop_strides(view.strides, dims)
        self._statements.append(Store(view.buffer, view.offset, loop_strides, arg))


def broadcast_strides(view: View, shape: Sequence[int]) -> list[int]:
    """Return the strides of a view seen in a larger shape."""
    lead = len(shape) - len(view.shape)
    return [0] * lead + [0 if size == 1 else stride for size, stride in zip(view.shape, view.strides, strict=True)]


def literal(value: Any, dtype: torch.dtype) -> str:
    """Write a number in C++, exactly.

    >>> literal(0.5, torch.float32), literal(True, torch.bool), literal(3, torch.float64)
    ('0x1.0000000000000p-1f', 'true', '0x1.8000000000000p+1')
    """
    if dtype is torch.bool:
        return "true" if value else "false"
    if not dtype.is_floating_point:
        number = int(value)
        return "INT64_MIN" if number == -(1 << 63) else f"{number}L" if dtype is torch.int64 else str(number)
    number, end = float(value), "f" if dtype is torch.float32 else ""
    if number != number:
        return f'__builtin_nan{end}("")'
    if number in {float("inf"), float("-inf")}:
        return f"{'-' if number < 0 else ''}__builtin_inf{end}()"
    if end:
        number = c_float(number).value  # rounded; to infinity where it is too large
        if number in {float("inf"), float("-inf")}:
            return literal(number, dtype)
    return f"({number.hex()}{end})" if number < 0 else f"{number.hex()}{end}"
