"""Write scopes in C++: kernels, loops, branches, and calls of Python."""

from typing import Any

from torchpure.jit.native.ir import Buffer, Kernel, Opaque, c_type
from torchpure.jit.native.lowering import Branches, Callback, Loop, Scope, held_name
from torchpure.jit.native.optimize import collapse_loops

from ._functions import Functions, opaque_lines
from ._lines import Lines
from ._loop_nest import LoopNest
from ._parallel import split_kernel, split_text
from ._signals import LEAVE, polling_interval


class StatementWriter:
    """Writes scopes and their items.

    Kernels are written where they run, or as calls of functions: all kernels of a long program, and those that several
    threads share.
    """

    def __init__(self, *, inline: bool) -> None:
        self.out, self.functions = Lines(), Functions()
        self.shares_work = False  # whether threads share a kernel
        self.polls = False  # whether a loop looks for signals
        self._inline = inline
        self._loops = 0

    def scope(self, scope: Scope) -> None:
        """Write a scope: the pointers of its temporaries, then its items."""
        last_use = {b: at for at, item in enumerate(scope.items) for b in item.reads() | item.writes()}
        for buffer in scope.temporaries:
            if buffer in last_use:
                self.pointer(buffer)
        held = [buffer for buffer in scope.temporaries if buffer.held and buffer in last_use]
        for position, item in enumerate(scope.items):
            self.item(item)
            for buffer in held:
                if last_use[buffer] == position:
                    self.out.line(f"{held_name(buffer.name)}.release();")

    def pointer(self, buffer: Buffer) -> None:
        """Declare the pointer of a temporary."""
        c = c_type(buffer.dtype)
        if buffer.held:
            self.out.line(f"Held {held_name(buffer.name)} = {{torch_}}; {c} *{buffer.name} = 0;")
        elif buffer.offset >= 0:
            self.out.line(f"{c} *{buffer.name} = ({c} *)(work + {buffer.offset});")

    def item(self, item: Any) -> None:
        """Write one item."""
        if isinstance(item, Kernel):
            item = collapse_loops(item)
        if isinstance(item, Kernel | Opaque):
            self.work(item)
        elif isinstance(item, Loop):
            self.loop(item)
        elif isinstance(item, Branches):
            self.branches(item)
        elif isinstance(item, Callback):
            pointers = ", ".join(f"(void *)({view.buffer.name} + {view.offset})" for view in item.operands)
            held = f"if (!{item.skip_if.buffer.name}[{item.skip_if.offset}]) " if item.skip_if else ""
            self.out.line(
                f"{held}{{ void *given[] = {{{pointers or 0}}}; if (hook({item.number}, given)) return -1; }}"
            )

    def work(self, item: Kernel | Opaque) -> None:
        """Write a kernel or a C++ text."""
        split = split_kernel(item) if isinstance(item, Kernel) else split_text(item)
        if split is not None:
            self.shares_work = True
            self.out.line(self.functions.call_shared(item, split))
        elif not self._inline:
            self.out.line(self.functions.call(item))
        elif isinstance(item, Kernel):
            LoopNest(self.out, item).write()
        else:
            self.out.line("\n".join(["{", *opaque_lines(item), "}"]))

    def loop(self, loop: Loop) -> None:
        """Write a loop."""
        self._loops += 1
        self.out.open("")
        for buffer in loop.setup.temporaries:
            self.pointer(buffer)
        for item in loop.setup.items:
            self.item(item)
        interval = polling_interval(loop)
        if loop.length is not None and loop.length <= interval:
            self.iterations(loop, f"n < {loop.length}")
        else:
            self.polled(loop, interval)
        self.scope(loop.teardown)
        self.out.close()

    def polled(self, loop: Loop, interval: int) -> None:
        """Write a long loop: after `interval` iterations it looks for signals."""
        self.polls = True
        more = f"more{self._loops}"
        self.out.line("Poll poll = {python_};")
        if loop.length is None:
            self.out.open(f"for (bool {more} = true; {more};)")
            self.out.line(f"const int64_t stop = {interval};")
            self.iterations(loop, "n < stop", more)
        else:
            self.out.open(f"for (int64_t start = 0; start < {loop.length}; start += {interval})")
            last = loop.length - interval
            self.out.line(f"const int64_t stop = start < {last} ? start + {interval} : {loop.length};")
            self.iterations(loop, "n < stop", start="start")
        self.out.line("if (poll.late() && poll.stopped(hook)) return -7;")
        self.out.close()

    def iterations(self, loop: Loop, limit: str, more: str = "", start: str = "0") -> None:
        """Write iterations. Each ends with a swap of the two pointers of every carry."""
        turn = f"turn{self._loops}"
        self.out.open(f"for (int64_t n = {start}; {limit}; n++)")
        if loop.length is not None:
            self.out.line(f"const int64_t {turn} = {f'{loop.length - 1} - n' if loop.reverse else 'n'}; (void){turn};")
        if loop.condition:
            test, flag = loop.condition
            self.scope(test)
            self.out.line(LEAVE)
            self.out.line(f"if (!{flag.buffer.name}[{flag.offset}]) {{ {more} = false; break; }}")
        for part in loop.slices:
            c = c_type(part.buffer.dtype)
            self.out.line(
                f"{c} *{part.buffer.name} = {part.base.buffer.name} + {part.base.offset} + {turn} * {part.step};"
            )
        self.scope(loop.body)
        self.out.line(LEAVE)
        for pair in loop.carried:
            a, b = pair.now.buffer.name, pair.next.buffer.name
            self.out.line(f"{{ auto *other = {a}; {a} = {b}; {b} = other; }}")
        self.out.close()

    def branches(self, item: Branches) -> None:
        """Write a switch over scopes."""
        self.out.open(f"switch ({item.index.buffer.name}[{item.index.offset}])")
        for number, branch in enumerate(item.branches):
            last = number == len(item.branches) - 1
            self.out.open(f"{'default' if last else f'case {number}'}:")
            self.scope(branch)
            self.out.line("break;")
            self.out.close()
        self.out.close()
