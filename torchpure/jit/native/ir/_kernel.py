"""A kernel: loops over a domain, and the statements that one iteration runs.

For example, `x.sum(1)` for x of shape (3, 5) has the domain (3, 5). Variable 0 is outer, variable 1 is inner. The body
loads an element, a reduction adds it up, and the epilogue stores the sum once per outer iteration.

Statements are in single assignment form. Names are unique in a program, so that kernels can be fused. Every address is
affine in the loop variables: an offset plus one stride per variable.
"""

from collections.abc import Callable, Mapping, Sequence
from ctypes import c_float
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ._values import SLOT, Buffer, Number, Value, View

LoopStrides = tuple[int, ...]  # per loop variable: the elements by which one step moves an address


@dataclass(frozen=True, slots=True)
class Load:
    """Read an element."""

    name: str
    buffer: Buffer
    offset: int
    loop_strides: LoopStrides


@dataclass(frozen=True, slots=True)
class IndirectLoad:
    """Read an element at `offset + Σ index·stride`. Each index is a value: it is wrapped and checked at run time."""

    name: str
    buffer: Buffer
    offset: int
    loop_strides: LoopStrides
    indices: tuple[tuple[str, int, int], ...]  # (name, size, stride)


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute a value. `text` is C++ in which {0}, {1} … stand for the names in `args`."""

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
    """Reduce a value over the inner variables."""

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
    """Loops over `sizes`. The first `outer` variables are outer ones, the others are reduced."""

    sizes: tuple[int, ...]
    outer: int
    body: list[Statement] = field(default_factory=list)  # runs in every iteration
    reductions: list[Reduce] = field(default_factory=list)
    epilogue: list[Statement] = field(default_factory=list)  # runs after the inner loops

    @property
    def reduces(self) -> bool:
        """Tell whether there are inner variables."""
        return bool(self.reductions)

    def statements(self) -> list[Statement]:
        """List all statements."""
        return [*self.body, *self.reductions, *self.epilogue]

    def reads(self) -> set[Buffer]:
        """Return the buffers that are read."""
        return {s.buffer for s in self.statements() if isinstance(s, Load | IndirectLoad)}

    def writes(self) -> set[Buffer]:
        """Return the buffers that are written."""
        return {s.buffer for s in self.statements() if isinstance(s, Store)}


@dataclass(eq=False, slots=True)
class Opaque:
    """C++ text of which only the buffers that it reads and writes are known."""

    text: str  # with slots of buffers (`Buffer.slot`) in the place of pointers
    read_buffers: tuple[Buffer, ...]
    written_buffers: tuple[Buffer, ...]
    accumulate: Callable[[str, str], str] | None = (
        None  # (pointer or slot, factor) -> text that adds factor · result there
    )
    needs_nonzero_factor: bool = False  # BLAS skips the product if the factor is 0, even for inf
    count: int = 1  # above 1: the text runs the iterations from `first` to `last` of so many, which are independent
    cost: int = 0  # of all iterations, in the unit of `kernel_cost`
    tables: tuple[str, ...] = ()  # pointers to functions of torch that the text uses: sgemm_, dgemm_, torch_
    results: tuple[View | None, ...] = ()  # of a call of torch: where each result goes; None if it is not used

    def text_with(self, names: Mapping[str, str]) -> str:
        """Return the text with a name in each slot: that of its buffer, or the one that replaces it in `names`."""
        parts = self.text.split(SLOT)
        parts[1::2] = [names.get(name, name) for name in parts[1::2]]
        return "".join(parts)

    def redirect(self, old: Buffer, new: Buffer) -> "Opaque":
        """Return the same text with buffer `new` written in the place of `old`."""
        written = tuple(new if buffer is old else buffer for buffer in self.written_buffers)
        results = tuple(replace(v, buffer=new) if v and v.buffer is old else v for v in self.results)
        text = self.text.replace(old.slot, new.slot)
        return replace(self, text=text, written_buffers=written, accumulate=None, results=results)

    def reads(self) -> set[Buffer]:
        """Return the buffers that are read."""
        return set(self.read_buffers)

    def writes(self) -> set[Buffer]:
        """Return the buffers that are written."""
        return set(self.written_buffers)


def loop_heads(variable: str, sizes: Sequence[tuple[int, int]]) -> tuple[str, int]:
    """Write the heads of loops over (dimension, size). Return them, and the size of the longest one.

    The longest loop runs from `first` to `last`, so that several threads can share its iterations.
    """
    longest = max(((dim, size) for dim, size in sizes if size > 1), key=lambda part: part[1], default=(-1, 1))
    heads = [
        f"for (int64_t {variable}{dim} = {'first' if dim == longest[0] else 0}; "
        f"{variable}{dim} < {'last' if dim == longest[0] else size}; {variable}{dim}++) "
        for dim, size in sizes
    ]
    return "".join(heads), longest[1]


def remap_variables(statement: Statement, mapping: Sequence[int], count: int) -> Statement:
    """Rewrite a statement for a domain of `count` variables: its variable i becomes `mapping[i]`."""
    if isinstance(statement, Load | IndirectLoad | Store):
        loop_strides = [0] * count
        for own, stride in enumerate(statement.loop_strides):
            loop_strides[mapping[own]] = stride
        return replace(statement, loop_strides=tuple(loop_strides))
    if isinstance(statement, Iota):
        return replace(statement, variable=mapping[statement.variable])
    return statement


def rename_arguments(statement: Statement, names: dict[str, str]) -> Statement:
    """Rewrite a statement with other names for its arguments."""
    if isinstance(statement, Compute):
        return replace(statement, args=tuple(names.get(arg, arg) for arg in statement.args))
    if isinstance(statement, Reduce | Store):
        return replace(statement, arg=names.get(statement.arg, statement.arg))
    if isinstance(statement, IndirectLoad):
        return replace(statement, indices=tuple((names.get(n, n), size, step) for n, size, step in statement.indices))
    return statement


class NameGenerator:
    """Generates a unique name for each value and each buffer of a program."""

    def __init__(self) -> None:
        self._count = 0

    def new(self, letter: str) -> str:
        """Return a new name that begins with this letter."""
        self._count += 1
        return f"{letter}{self._count}"


class KernelBuilder:
    """Builds one kernel: load, compute, reduce, store."""

    def __init__(self, names: NameGenerator, shape: Sequence[int], reduced_dims: Sequence[int] = ()) -> None:
        """Start a kernel over a shape. The dimensions in `reduced_dims` become inner variables."""
        self._names = names
        dims = [dim for dim in range(len(shape)) if dim not in reduced_dims] + list(reduced_dims)
        kept = [dim for dim in dims if shape[dim] != 1]
        self._variable = {dim: i for i, dim in enumerate(kept)}
        self._rank = len(shape)
        self.kernel = Kernel(tuple(shape[dim] for dim in kept), sum(dim not in reduced_dims for dim in kept))
        self._statements = self.kernel.body

    def loop_strides(self, strides: Sequence[int], dims: Sequence[int] | None = None) -> LoopStrides:
        """Return one stride per loop variable, from one stride per dimension of the shape (or of `dims`)."""
        found = [0] * len(self.kernel.sizes)
        for dim, stride in zip(range(self._rank) if dims is None else dims, strides, strict=True):
            if dim in self._variable:
                found[self._variable[dim]] = stride
        return tuple(found)

    def load(self, value: Value, shape: Sequence[int]) -> str:
        """Load the element of a value that is broadcast to the whole shape."""
        if isinstance(value, Number):
            return self.number(value.value, value.dtype)
        strides = broadcast_strides(value, shape)
        name = self._names.new("v")
        self._statements.append(Load(name, value.buffer, value.offset, self.loop_strides(strides)))
        return name

    def indirect_load(self, view: View, indices: Sequence[tuple[str, int, int]], strides: Sequence[int]) -> str:
        """Load an element at computed indices. `strides` says how the loop variables move the address."""
        name = self._names.new("v")
        self._statements.append(
            IndirectLoad(name, view.buffer, view.offset, self.loop_strides(strides), tuple(indices))
        )
        return name

    def number(self, value: Any, dtype: torch.dtype) -> str:
        """Write a number as a literal."""
        return self.compute(dtype, literal(value, dtype))

    def compute(self, dtype: torch.dtype, text: str, *args: str) -> str:
        """Compute a value from other values."""
        name = self._names.new("v")
        self._statements.append(Compute(name, dtype, text, args))
        return name

    def iota(self, dtype: torch.dtype, start: Any, step: Any, dim: int) -> str:
        """Compute start + step · (index in a dimension)."""
        if dim not in self._variable:
            return self.number(start, dtype)
        name = self._names.new("v")
        self._statements.append(Iota(name, dtype, start, step, self._variable[dim]))
        return name

    def reduce(self, dtype: torch.dtype, kind: str, arg: str) -> str:
        """Reduce a value over the inner variables. Later statements go to the epilogue."""
        if self.kernel.outer == len(self.kernel.sizes):  # all inner sizes are 1
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
    """Return the strides of a view that is broadcast to a larger shape."""
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
        number = c_float(number).value  # rounds to float32; may become infinite
        if number in {float("inf"), float("-inf")}:
            return literal(number, dtype)
    return f"({number.hex()}{end})" if number < 0 else f"{number.hex()}{end}"
