"""Write kernels as C++ functions, one for each structure.

A deep network repeats the same kernels on other memory, and the analyses of a C++ compiler grow faster than the length
of a function. So in a long program each kernel is a function, which gets its memory through pointers. Kernels with the
same structure share one function.

A kernel that several threads share is a function too, which runs some iterations of its outermost loop.

Law: a program computes the same bits with its kernels in functions.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torchpure.jit.native.ir import Buffer, Compute, IndirectLoad, Kernel, Load, Opaque, Reduce, Store, c_type
from torchpure.jit.native.lowering import Branches, Loop, held_name, store_results

from ._lines import Lines
from ._loop_nest import LoopNest
from ._parallel import Split

MAX_INLINE_KERNELS = 64  # kernels that one function may hold: a call costs some nanoseconds in small loops
SHARE = """
typedef void (*Share)(int64_t, int64_t, void *);
typedef int (*Parallel)(int64_t, int64_t, int64_t, Share, void *);
static void op_share(Parallel parallel, int64_t count, int64_t grain, Share run, void *given) {
  if (parallel) parallel(0, count, grain, run, given);
  else run(0, count, given);
}
"""
_STATIC = "static __attribute__((noinline))"
_TABLES = {"sgemm_": "sgemm", "dgemm_": "dgemm", "torch_": "const Torch *"}  # pointers that C++ text may use; types


def count_kernels(items: Sequence[Any]) -> int:
    """Count the kernels and C++ texts of a scope, including those of loops and branches."""
    total = 0
    for item in items:
        if isinstance(item, Loop | Branches):
            total += sum(count_kernels(scope.items) for scope in item.scopes())
        else:
            total += isinstance(item, Kernel | Opaque)
    return total


class Functions:
    """The functions of a program."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self._names: dict[tuple[str, ...], str] = {}  # parameters and body -> name

    def call(self, item: Kernel | Opaque) -> str:
        """Return the C++ statement that runs a kernel or a C++ text; write its function at the first use."""
        body, parameters, arguments = _function(item, None)
        name = self._define([f"{_STATIC} int NAME({', '.join([*parameters, 'int &bad'])}) {{"], [*body, "  return 0;"])
        call = f"{name}({', '.join([*arguments, 'bad'])})"
        returns_error = any("return" in line for line in body)
        return f"if (int code = {call}) return code;" if returns_error else f"{call};"

    def call_shared(self, item: Kernel | Opaque, split: Split) -> str:
        """Return the C++ statement that runs a kernel or a C++ text on several threads."""
        body, parameters, arguments = _function(item, split.variable)
        fields = [parameter.split(" ")[-1].lstrip("*&") for parameter in parameters]
        last = f"end * {split.block} < {split.size} ? end * {split.block} : {split.size}"
        head = [
            f"struct NAME_arguments {{ {' '.join(f'{p};' for p in parameters)} int *bad; }};",
            f"{_STATIC} void NAME(int64_t begin, int64_t end, void *context) {{",
            "  const auto &given = *(const NAME_arguments *)context;",
            *(f"  const auto {field} = given.{field};" for field in fields),
            f"  const int64_t first = begin * {split.block}, last = {last};",
            "  int bad = 0;",
        ]
        name = self._define(head, [*body, "  if (bad) __atomic_fetch_or(given.bad, bad, __ATOMIC_RELAXED);"])
        given = f"{name}_arguments given = {{{', '.join([*arguments, '&bad'])}}};"
        return f"{{ {given} op_share(parallel_, {split.count}, {split.grain}, {name}, &given); }}"

    def _define(self, head: Sequence[str], body: Sequence[str]) -> str:
        """Write a function, unless there is one with the same head and body. Return its name, which replaces NAME."""
        key = (*head, *body)
        if key not in self._names:
            name = self._names[key] = f"kernel{len(self._names)}"
            self.text += [*(line.replace("NAME", name) for line in head), *body, "}"]
        return self._names[key]


def _function(item: Kernel | Opaque, split: int | None) -> tuple[list[str], list[str], list[str]]:
    """Return the body of a function, its parameters, and the arguments of a call."""
    if isinstance(item, Kernel):
        return _kernel(item, split)
    body, parameters, arguments = _opaque(item, shared=split is not None)
    tables = [f"{_TABLES[name]} {name}" for name in item.tables]
    return body, [*parameters, *tables], [*arguments, *item.tables]


def opaque_lines(item: Opaque, *, shared: bool = False) -> list[str]:
    """Return the lines of a C++ text. A text that is not shared runs all of its iterations."""
    whole = [f"const int64_t first = 0, last = {item.count};"] if item.count > 1 and not shared else []
    return [*whole, *item.text_with({}).split("\n"), *store_results(item)]


def _parameter(number: int) -> str:
    return f"arg{number}"  # no C++ text has such a name: in those of products p0, p1 … are loop variables


def _kernel(kernel: Kernel, split: int | None) -> tuple[list[str], list[str], list[str]]:
    """Return the body of a kernel's function, its parameters, and the arguments of a call."""
    starts: dict[Buffer, int] = {}  # offset of the first access: kernels of one structure may start elsewhere
    for s in kernel.statements():
        if isinstance(s, Load | IndirectLoad | Store):
            starts.setdefault(s.buffer, s.offset)
    parameters = {buffer: Buffer(_parameter(number), buffer.dtype, 0) for number, buffer in enumerate(starts)}
    names: dict[str, str] = {}
    body, reductions, epilogue = (
        [_canonical(s, names, parameters, starts) for s in part]
        for part in (kernel.body, kernel.reductions, kernel.epilogue)
    )
    lines = Lines()
    LoopNest(lines, replace(kernel, body=body, reductions=reductions, epilogue=epilogue), split).write()
    declared = [f"{c_type(new.dtype)} *{new.name}" for new in parameters.values()]
    return lines.text, declared, [f"{buffer.name} + {start}" for buffer, start in starts.items()]


def _canonical(s: Any, names: dict[str, str], parameters: dict[Buffer, Buffer], starts: dict[Buffer, int]) -> Any:
    """Return a statement with values named by their order in the kernel, and with the parameters as buffers."""
    if isinstance(s, Compute):
        s = replace(s, args=tuple(names[arg] for arg in s.args))
    elif isinstance(s, Reduce | Store):
        s = replace(s, arg=names[s.arg])
    elif isinstance(s, IndirectLoad):
        s = replace(s, indices=tuple((names[n], size, step) for n, size, step in s.indices))
    if isinstance(s, Load | IndirectLoad | Store):
        s = replace(s, offset=s.offset - starts[s.buffer], buffer=parameters[s.buffer])
    if isinstance(s, Store):
        return s
    names[s.name] = f"v{len(names)}"
    return replace(s, name=names[s.name])


def _opaque(item: Opaque, *, shared: bool) -> tuple[list[str], list[str], list[str]]:
    """Return the body of the function of a C++ text, its parameters, and the arguments of a call."""
    buffers = list(dict.fromkeys((*item.read_buffers, *item.written_buffers)))
    renamed = {buffer: replace(buffer, name=_parameter(number)) for number, buffer in enumerate(buffers)}
    results = tuple(view and replace(view, buffer=renamed[view.buffer]) for view in item.results)
    text = item.text_with({buffer.name: new.name for buffer, new in renamed.items()})
    reads = tuple(renamed[buffer] for buffer in item.read_buffers)
    lines = opaque_lines(replace(item, text=text, read_buffers=reads, results=results), shared=shared)
    taken = {view.buffer for view in item.results if view and view.buffer.held}  # the call sets these pointers
    parameters = [f"{c_type(b.dtype)} *{'&' * (b in taken)}{new.name}" for b, new in renamed.items()]
    taken |= {b for b in item.read_buffers if b.held and not b.size}  # passed on as torch returned them
    held = [buffer.name for buffer in buffers if buffer in taken]
    parameters += [f"Held &{held_name(new.name)}" for b, new in renamed.items() if b in taken]
    return [f"  {line}" for line in lines], parameters, [*(b.name for b in buffers), *map(held_name, held)]
