"""Write kernels as C++ functions, one for each structure.

A deep network repeats the same kernels on other memory, and the analyses of a C++ compiler grow faster than the length
of a function. So in a long program each kernel is a function, which gets its memory through pointers. Kernels with the
same structure share one function.

Law: a program computes the same bits with its kernels in functions.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torchpure.jit.native.ir import Buffer, Compute, IndirectLoad, Kernel, Load, Opaque, Reduce, Store, c_type
from torchpure.jit.native.lowering import Branches, Loop

from ._lines import Lines
from ._loop_nest import LoopNest

MAX_INLINE_KERNELS = 64  # kernels that one function may hold: a call costs some nanoseconds in small loops
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
        body, buffers, arguments = _kernel(item) if isinstance(item, Kernel) else _opaque(item)
        tables = [name for name in _TABLES if any(re.search(rf"\b{name}\b", line) for line in body)]
        parameters = [
            *(f"{c_type(buffer.dtype)} *{_parameter(number)}" for number, buffer in enumerate(buffers)),
            *(f"{_TABLES[name]} {name}" for name in tables),
            "int &bad",
        ]
        name = self._define(", ".join(parameters), body)
        call = f"{name}({', '.join([*arguments, *tables, 'bad'])})"
        returns_error = any("return" in line for line in body)
        return f"if (int code = {call}) return code;" if returns_error else f"{call};"

    def _define(self, parameters: str, body: Sequence[str]) -> str:
        key = (parameters, *body)
        if key not in self._names:
            self._names[key] = f"kernel{len(self._names)}"
            head = f"static __attribute__((noinline)) int {self._names[key]}({parameters}) {{"
            self.text += [head, *body, "  return 0;", "}"]
        return self._names[key]


def _parameter(number: int) -> str:
    return f"arg{number}"  # no C++ text has such a name: in those of products p0, p1 … are loop variables


def _kernel(kernel: Kernel) -> tuple[list[str], list[Buffer], list[str]]:
    """Return the body of a kernel's function, the buffers that it uses, and the pointers that a call passes."""
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
    LoopNest(lines, replace(kernel, body=body, reductions=reductions, epilogue=epilogue)).write()
    return lines.text, list(starts), [f"{buffer.name} + {start}" for buffer, start in starts.items()]


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


def _opaque(item: Opaque) -> tuple[list[str], list[Buffer], list[str]]:
    """Return the body of the function of a C++ text, the buffers that it uses, and the pointers that a call passes."""
    buffers = list(dict.fromkeys((*item.read_buffers, *item.written_buffers)))
    text = item.text_with({buffer.name: _parameter(number) for number, buffer in enumerate(buffers)})
    return [f"  {line}" for line in text.split("\n")], buffers, [buffer.name for buffer in buffers]
