"""From kernels to C++: scopes, loops, branches, calls of Python."""

from typing import Any

from ._kernel import Kernel, Opaque
from ._loopnest import LoopNest
from ._loops import Branches, Callback, Loop
from ._lower import Scope
from ._values import Buffer, c_type

_INDENT = "  "


class Writer:
    """Lines of C++."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 1
        self._loops = 0

    def line(self, text: str) -> None:
        """Write a line."""
        self.lines.append(_INDENT * self.depth + text)

    def open(self, text: str) -> None:
        """Begin a block."""
        self.line(text + " {")
        self.depth += 1

    def close(self, count: int = 1) -> None:
        """End blocks."""
        for _ in range(count):
            self.depth -= 1
            self.line("}")

    def scope(self, scope: Scope) -> None:
        """Write a scope: pointers of its temporaries, then its items."""
        used = {b for item in scope.items for b in item.reads() | item.writes()}
        for buffer in scope.temporaries:
            if buffer.offset >= 0 and buffer in used:
                self.pointer(buffer)
        for item in scope.items:
            self.item(item)

    def pointer(self, buffer: Buffer) -> None:
        """Declare the pointer of a temporary."""
        c = c_type(buffer.dtype)
        self.line(f"{c} *{buffer.name} = ({c} *)(work + {buffer.offset});")

    def item(self, item: Any) -> None:
        """Write one item."""
        if isinstance(item, Kernel):
            LoopNest(self, item).write()
        elif isinstance(item, Opaque):
            self.line(item.text)
        elif isinstance(item, Loop):
            self.loop(item)
        elif isinstance(item, Branches):
            self.branches(item)
        elif isinstance(item, Callback):
            pointers = ", ".join(f"(void *)({view.buffer.name} + {view.offset})" for view in item.operands)
            held = f"if (!{item.unless.buffer.name}[{item.unless.offset}]) " if item.unless else ""
            self.line(f"{held}{{ void *given[] = {{{pointers or 0}}}; if (hook({item.number}, given)) return -1; }}")

    def loop(self, loop: Loop) -> None:
        """Write the turns of a body; what is carried moves between two buffers."""
        self._loops += 1
        turn = f"turn{self._loops}"
        self.open("")
        for buffer in loop.head.temporaries:
            self.pointer(buffer)
        for item in loop.head.items:
            self.item(item)
        if loop.length is None:
            self.open("while (1)")
        else:
            self.open(f"for (int64_t n = 0; n < {loop.length}; n++)")
            self.line(f"const int64_t {turn} = {f'{loop.length - 1} - n' if loop.reverse else 'n'}; (void){turn};")
        if loop.condition:
            test, flag = loop.condition
            self.scope(test)
            self.line(f"if (!{flag.buffer.name}[{flag.offset}]) break;")
        for part in loop.slices:
            c = c_type(part.buffer.dtype)
            self.line(f"{c} *{part.buffer.name} = {part.base.buffer.name} + {part.base.offset} + {turn} * {part.step};")
        self.scope(loop.scope)
        for pair in loop.carried:
            a, b = pair.now.buffer.name, pair.next.buffer.name
            self.line(f"{{ auto *other = {a}; {a} = {b}; {b} = other; }}")
        self.close()
        self.scope(loop.tail)
        self.close()

    def branches(self, item: Branches) -> None:
        """Write one of several scopes."""
        self.open(f"switch ({item.index.buffer.name}[{item.index.offset}])")
        for number, branch in enumerate(item.branches):
            last = number == len(item.branches) - 1
            self.open(f"{'default' if last else f'case {number}'}:")
            self.scope(branch)
            self.line("break;")
            self.close()
        self.close()
