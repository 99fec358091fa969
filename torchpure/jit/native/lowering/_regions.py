"""Items with scopes inside: loops and branches; and callbacks, which call Python."""

from dataclasses import dataclass, field

from torchpure.jit.native.ir import Buffer, View

from ._scope import Scope


@dataclass(eq=False, slots=True)
class CarrySlot:
    """One carry of a loop: the buffer that an iteration reads, and the one that it writes. They swap afterwards."""

    now: View
    next: View


@dataclass(eq=False, slots=True)
class LoopSlice:
    """A pointer that advances with each iteration: a slice of `xs` or of stacked outputs."""

    buffer: Buffer  # its buffer inside the body
    base: View
    step: int


@dataclass(eq=False, slots=True)
class Loop:
    """A loop of `length` iterations, or one that runs while a condition holds."""

    body: Scope
    carried: list[CarrySlot]
    slices: list[LoopSlice]
    length: int | None
    reverse: bool
    setup: Scope  # runs before the first iteration
    teardown: Scope  # runs after the last iteration
    condition: tuple[Scope, View] | None = None
    outside_reads: set[Buffer] = field(default_factory=set)

    def scopes(self) -> list[Scope]:
        """List the scopes, each of which has temporaries."""
        return [self.setup, self.body, self.teardown, *([self.condition[0]] if self.condition else [])]

    def live_out(self, scope: Scope) -> set[Buffer]:
        """Return the temporaries of a scope that other scopes of the loop read."""
        carried = {view.buffer for pair in self.carried for view in (pair.now, pair.next)}
        return carried | ({self.condition[1].buffer} if self.condition and scope is self.condition[0] else set())

    def private_buffers(self) -> set[Buffer]:
        """Return the buffers that only this loop uses."""
        found = {view.buffer for pair in self.carried for view in (pair.now, pair.next)}
        return found | {part.buffer for part in self.slices} | {b for s in self.scopes() for b in s.temporaries}

    def reads(self) -> set[Buffer]:
        """Return the buffers from outside that are read."""
        found = {
            buffer for scope in self.scopes() for item in scope.items for buffer in item.reads()
        } | self.outside_reads
        return found - self.private_buffers()

    def writes(self) -> set[Buffer]:
        """Return the buffers from outside that are written."""
        found = {buffer for scope in self.scopes() for item in scope.items for buffer in item.writes()}
        return (found - self.private_buffers()) | {
            part.base.buffer for part in self.slices if part.base.buffer not in self.outside_reads
        }


@dataclass(eq=False, slots=True)
class Branches:
    """A switch: one of several scopes runs, chosen by an index."""

    index: View
    branches: list[Scope]

    def scopes(self) -> list[Scope]:
        """List the scopes, each of which has temporaries."""
        return self.branches

    def live_out(self, scope: Scope) -> set[Buffer]:
        """Return the temporaries of a scope that other scopes read: none."""
        return set()

    def reads(self) -> set[Buffer]:
        """Return the buffers from outside that are read."""
        found = {buffer for scope in self.branches for item in scope.items for buffer in item.reads()}
        return (found | {self.index.buffer}) - {b for s in self.branches for b in s.temporaries}

    def writes(self) -> set[Buffer]:
        """Return the buffers from outside that are written."""
        found = {buffer for scope in self.branches for item in scope.items for buffer in item.writes()}
        return found - {b for s in self.branches for b in s.temporaries}


@dataclass(eq=False, slots=True)
class Callback:
    """A call of a Python function."""

    number: int
    operands: list[View]
    skip_if: View | None = None  # a bool: if it is true at run time, the call is skipped

    def reads(self) -> set[Buffer]:
        """Return the buffers that are read."""
        return {view.buffer for view in (*self.operands, *([self.skip_if] if self.skip_if else []))}

    def writes(self) -> set[Buffer]:
        """Return the buffers that are written: none."""
        return set()
