"""Write one kernel in C++: choose the vectorised variable, order the loops, write the text.

The *lane* is the loop variable that runs over the lanes of a vector register. If it is an outer variable, no sum across
lanes is needed. An inner loop of up to `MAX_UNROLLED_ITERATIONS` is unrolled for this. A longer one keeps a strip of
accumulators.
"""

from collections.abc import Sequence
from itertools import product
from math import prod

import torch

from torchpure.jit.native.ir import (
    Buffer,
    Compute,
    IndirectLoad,
    Iota,
    Kernel,
    Load,
    Reduce,
    Statement,
    Store,
    c_type,
    literal,
)

from ._lines import Lines

MAX_UNROLLED_ITERATIONS = 16  # inner loops up to this length are unrolled, so that an outer variable is the lane
MAX_UNROLLED_STATEMENTS = 400  # at most so many statements after unrolling
WIDE_STRIP = 256  # accumulators of a strip that passes through memory outside of the caches: whole lines are read
_WIDE_FROM = 1 << 17  # iterations of a kernel from which strips are wide; below, accumulators stay in registers
_LONG_CHAIN = 512  # additions to one accumulator of float32; after more, its last digits are wrong
_PARTIAL_RESULTS = 16  # accumulators of a reduction that compilers do not vectorise
_INITIAL_VALUES = {"sum": "0", "prod": "1", "any": "false", "all": "true"}
_COMBINE = {
    "sum": "{0} + {1}",
    "prod": "{0} * {1}",
    "any": "{0} | {1}",
    "all": "{0} & {1}",
    "max": "op_max({0}, {1})",
    "min": "op_min({0}, {1})",
}
_OMP_REDUCTIONS = {"sum": "+", "prod": "*", "any": "|", "all": "&"}


class LoopNest:
    """One kernel: the order of its loops, and its text."""

    def __init__(self, out: Lines, kernel: Kernel, split: int | None = None) -> None:
        """Order the loops. The loop over variable `split` runs from `first` to `last`, as the C++ around it says."""
        self.out, self.kernel, self.split = out, kernel, split
        self.lane = _choose_lane(kernel)
        outer = [v for v in range(kernel.outer) if v != self.lane]
        inner = [v for v in range(kernel.outer, len(kernel.sizes)) if v != self.lane]
        weight = _stride_weights(kernel)
        self.outer = sorted(outer, key=lambda v: (v != split, -weight[v]))
        self.inner = sorted(inner, key=lambda v: -weight[v])
        self.positions: dict[int, int | str] = {v: f"i{v}" for v in range(len(kernel.sizes))}

    def write(self) -> None:
        """Write the loops."""
        kernel = self.kernel
        self.out.open("")
        for variable in self.outer:
            self.out.open(self.head(variable))
        if not kernel.reduces:
            if self.lane is not None:
                self.vector_loop(self.lane)
            self.statements(kernel.body)
            self.out.close(len(self.outer) + (self.lane is not None))
        elif self.lane is not None and self.lane < kernel.outer:
            self.reduce_outer_lane()
            self.out.close(len(self.outer))
        else:
            self.reduce_inner_lane()
            self.out.close(len(self.outer))
        self.out.close()

    def head(self, variable: int) -> str:
        """Return the head of a loop."""
        name = f"i{variable}"
        start, end = ("first", "last") if variable == self.split else ("0", self.kernel.sizes[variable])
        return f"for (int64_t {name} = {start}; {name} < {end}; {name}++)"

    def vector_loop(self, variable: int, clause: str = "") -> None:
        """Open the loop over lanes."""
        self.simd(clause)
        self.out.open(self.head(variable))

    def simd(self, clause: str = "") -> None:
        """Ask for vectors, unless an iteration may set `bad`: iterations are not independent then."""
        if not any(
            isinstance(s, IndirectLoad) or (isinstance(s, Compute) and "bad" in s.text)
            for s in self.kernel.statements()
        ):
            self.out.line(f"#pragma omp simd{clause}")

    def reduce_outer_lane(self) -> None:
        """Write a reduction whose lane is an outer variable: no sum across lanes is needed."""
        assert self.lane is not None
        kernel = self.kernel
        iterations = prod(kernel.sizes[kernel.outer :])
        if iterations <= MAX_UNROLLED_ITERATIONS and iterations * len(kernel.body) <= MAX_UNROLLED_STATEMENTS:
            self.vector_loop(self.lane)
            self.unroll()
            self.statements(kernel.epilogue)
            self.out.close()
            return
        self.reduce_in_strips()

    def unroll(self) -> None:
        """Write out each iteration of the inner loops."""
        kernel = self.kernel
        ranges = [range(kernel.sizes[v]) for v in self.inner]
        for number, places in enumerate(product(*ranges)):
            self.positions.update(zip(self.inner, places, strict=True))
            names = {s.name: f"{s.name}_{number}" for s in kernel.body if not isinstance(s, Store)}
            self.statements(kernel.body, names)
            for reduction in kernel.reductions:
                value = f"({c_type(reduction.dtype)}){names[reduction.arg]}"
                if number == 0:
                    self.out.line(f"{c_type(reduction.dtype)} {reduction.name} = {value};")
                else:
                    self.out.line(f"{reduction.name} = {_COMBINE[reduction.kind].format(reduction.name, value)};")

    def reduce_in_strips(self) -> None:
        """Write a reduction with vectors of accumulators: one strip of lanes at a time, through all inner loops."""
        assert self.lane is not None
        kernel, size = self.kernel, self.kernel.sizes[self.lane]
        width = max(64 // max(f.dtype.itemsize for f in kernel.reductions), 8)
        if prod(kernel.sizes) >= _WIDE_FROM:
            width = WIDE_STRIP
        whole = size - size % width
        shared = self.lane == self.split
        if whole:
            end = f"last && j < {whole}" if shared else whole
            self.out.open(f"for (int64_t j = {'first' if shared else 0}; j < {end}; j += {width})")
            self.reduce_strip("j + l", width)
            self.out.close()
        if size % width:
            self.out.open(f"if (last == {size})" if shared else "")
            self.reduce_strip(f"{whole} + l", size % width)
            self.out.close()

    def reduce_strip(self, position: str, width: int) -> None:
        """Write the reduction of one strip."""
        kernel = self.kernel
        assert self.lane is not None
        self.positions[self.lane] = f"({position})"
        lanes = f"for (int64_t l = 0; l < {width}; l++)"
        self.declare_accumulators(width, _LONG_CHAIN)
        for variable in self.inner:
            self.out.open(self.head(variable))
        self.simd()
        self.out.open(lanes)
        self.statements(kernel.body)
        self.accumulate("_[l]")
        self.out.close(1 + len(self.inner))
        self.out.line("#pragma omp simd")
        self.out.open(lanes)
        for reduction in kernel.reductions:
            self.out.line(f"{c_type(reduction.dtype)} {reduction.name} = {reduction.name}_[l];")
        self.statements(kernel.epilogue)
        self.out.close()
        self.positions[self.lane] = f"i{self.lane}"

    def reduce_inner_lane(self) -> None:
        """Write a reduction whose lane is an inner variable, or that has no lane."""
        kernel = self.kernel
        clauses = [
            f"reduction({_OMP_REDUCTIONS[f.kind]}: {f.name})" for f in kernel.reductions if f.kind in _OMP_REDUCTIONS
        ]
        vectorised = len(clauses) == len(kernel.reductions)
        if self.lane is not None and not vectorised and kernel.sizes[self.lane] >= 2 * _PARTIAL_RESULTS:
            self.reduce_in_partial_results(self.lane)
            return
        self.declare_accumulators(0, _LONG_CHAIN * _PARTIAL_RESULTS)
        for variable in self.inner:
            self.out.open(self.head(variable))
        if self.lane is not None and vectorised:
            self.vector_loop(self.lane, " " + " ".join(clauses))
        elif self.lane is not None:
            self.out.open(self.head(self.lane))
        self.statements(kernel.body)
        self.accumulate("")
        self.out.close(len(self.inner) + (self.lane is not None))
        self.statements(kernel.epilogue)

    def reduce_in_partial_results(self, lane: int) -> None:
        """Write a reduction that compilers do not vectorise, such as a maximum: one result for each lane."""
        kernel, size = self.kernel, self.kernel.sizes[lane]
        whole = size - size % _PARTIAL_RESULTS
        self.declare_accumulators(_PARTIAL_RESULTS, _LONG_CHAIN * _PARTIAL_RESULTS)
        for variable in self.inner:
            self.out.open(self.head(variable))
        self.out.open(f"for (int64_t j = 0; j < {whole}; j += {_PARTIAL_RESULTS})")
        self.positions[lane] = "(j + l)"
        self.simd()
        self.out.open(f"for (int64_t l = 0; l < {_PARTIAL_RESULTS}; l++)")
        self.statements(kernel.body)
        self.accumulate("_[l]")
        self.out.close(2)
        self.positions[lane] = f"i{lane}"
        self.out.open(f"for (int64_t i{lane} = {whole}; i{lane} < {size}; i{lane}++)")
        self.statements(kernel.body)
        self.accumulate("_[0]")
        self.out.close(1 + len(self.inner))
        for f in kernel.reductions:
            self.out.line(f"{self.accumulator_type(f, _LONG_CHAIN * _PARTIAL_RESULTS)} {f.name} = {f.name}_[0];")
            combined = _COMBINE[f.kind].format(f.name, f"{f.name}_[l]")
            self.out.line(f"for (int64_t l = 1; l < {_PARTIAL_RESULTS}; l++) {f.name} = {combined};")
        self.statements(kernel.epilogue)

    def declare_accumulators(self, width: int, longest: int) -> None:
        """Declare the accumulators of all reductions: arrays of a width, or single numbers for width 0."""
        for f in self.kernel.reductions:
            c, initial = self.accumulator_type(f, longest), _initial_value(f)
            if width:
                self.out.line(f"{c} {f.name}_[{width}];")
                self.out.line(f"for (int64_t l = 0; l < {width}; l++) {f.name}_[l] = {initial};")
            else:
                self.out.line(f"{c} {f.name} = {initial};")

    def accumulator_type(self, reduction: Reduce, longest: int) -> str:
        """Return the C++ type of an accumulator: a sum of more than `longest` numbers of float32 would lose digits."""
        is_long = prod(self.kernel.sizes[self.kernel.outer :]) > longest
        wide = is_long and reduction.kind == "sum" and reduction.dtype is torch.float32
        return "double" if wide else c_type(reduction.dtype)

    def accumulate(self, suffix: str) -> None:
        """Combine the accumulators, whose names end in `suffix`, with the values of an iteration."""
        for f in self.kernel.reductions:
            value = f"({c_type(f.dtype)}){f.arg}"
            self.out.line(f"{f.name}{suffix} = {_COMBINE[f.kind].format(f.name + suffix, value)};")

    def statements(self, statements: Sequence[Statement], names: dict[str, str] | None = None) -> None:
        """Write statements, with other names for some values."""
        names = names or {}
        for s in statements:
            if isinstance(s, Store):
                value = names.get(s.arg, s.arg)
                if s.buffer.dtype is torch.bool:
                    value = f"{value} ? 1 : 0"
                self.out.line(f"{_pointer(s.buffer)}[{self.address(s.offset, s.loop_strides)}] = {value};")
                continue
            assert not isinstance(s, Reduce)
            dtype = s.buffer.dtype if isinstance(s, Load | IndirectLoad) else s.dtype
            self.out.line(f"const {c_type(dtype)} {names.get(s.name, s.name)} = {self.expression(s, names)};")

    def expression(self, s: Load | IndirectLoad | Compute | Iota, names: dict[str, str]) -> str:
        """Return the C++ expression of a statement."""
        if isinstance(s, Load):
            text = f"{_pointer(s.buffer)}[{self.address(s.offset, s.loop_strides)}]"
            return f"{text} != 0" if s.buffer.dtype is torch.bool else text
        if isinstance(s, IndirectLoad):
            places = [f"op_place({names.get(n, n)}, {size}, bad) * ({step})" for n, size, step in s.indices]
            return f"{s.buffer.name}[{' + '.join([self.address(s.offset, s.loop_strides), *places])}]"
        if isinstance(s, Iota):
            start, step = literal(s.start, s.dtype), literal(s.step, s.dtype)
            return f"({c_type(s.dtype)})({start} + {step} * ({c_type(s.dtype)}){self.positions[s.variable]})"
        return f"({c_type(s.dtype)})({s.text.format(*(names.get(arg, arg) for arg in s.args))})"

    def address(self, offset: int, loop_strides: Sequence[int]) -> str:
        """Return the C++ index expression of an address."""
        terms = [str(offset)] if offset else []
        for variable, stride in enumerate(loop_strides):
            position = self.positions[variable]
            if isinstance(position, int):
                terms = _add_constant(terms, position * stride)
            elif stride:
                terms.append(position if stride == 1 else f"{stride} * {position}")
        return " + ".join(terms) or "0"


def _pointer(buffer: Buffer) -> str:
    """Return the pointer to a buffer. Bools are accessed as bytes: else compilers branch and do not vectorize."""
    return f"((uint8_t *){buffer.name})" if buffer.dtype is torch.bool else buffer.name


def _add_constant(terms: list[str], number: int) -> list[str]:
    if terms and terms[0].lstrip("-").isdigit():
        return [str(int(terms[0]) + number), *terms[1:]]
    return [str(number), *terms] if number else terms


def _initial_value(reduction: Reduce) -> str:
    if reduction.kind in _INITIAL_VALUES:
        return _INITIAL_VALUES[reduction.kind]
    floating = reduction.dtype.is_floating_point
    info = (
        torch.finfo(reduction.dtype)
        if floating
        else None
        if reduction.dtype is torch.bool
        else torch.iinfo(reduction.dtype)
    )
    if info is None:
        return "false" if reduction.kind == "max" else "true"
    worst = -float("inf") if reduction.kind == "max" else float("inf")
    return literal(worst if floating else info.min if reduction.kind == "max" else info.max, reduction.dtype)


def _choose_lane(kernel: Kernel) -> int | None:
    """Choose the lane: the variable with the most contiguous accesses, weighted by its size.

    Accesses of the epilogue count less: it runs once per outer iteration.
    """
    rare = 1.0 / prod(kernel.sizes[kernel.outer :])
    best, chosen = 0.0, None
    for variable, size in enumerate(kernel.sizes):
        score = sum(_contiguity(s, variable) for s in kernel.body)
        score += rare * sum(_contiguity(s, variable) for s in kernel.epilogue)
        score *= min(size, 32) / (1.5 if variable >= kernel.outer else 1.0)
        if score > best:
            best, chosen = score, variable
    return chosen if chosen is not None else (len(kernel.sizes) - 1 if kernel.sizes else None)


def _contiguity(s: Statement, variable: int) -> float:
    """Rate an access, if this variable is the lane: contiguous stores gain most, scattered loads cost most."""
    if not isinstance(s, Load | IndirectLoad | Store):
        return 0.0
    stride = s.loop_strides[variable]
    if stride == 0:
        return 0.5
    if isinstance(s, Store):
        return 2.0 if stride == 1 else -0.7
    return 1.0 if stride == 1 else -2.0


def _stride_weights(kernel: Kernel) -> list[int]:
    """Return, per variable, the sum of its strides. Variables with large strides become outer loops."""
    found = [0] * len(kernel.sizes)
    for s in kernel.statements():
        if isinstance(s, Load | IndirectLoad | Store):
            for variable, stride in enumerate(s.loop_strides):
                found[variable] += abs(stride)
    return found
