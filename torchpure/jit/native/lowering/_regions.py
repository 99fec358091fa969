"""Loops, branches and callbacks, as the generator writes them."""

from dataclasses import dataclass, field

from torchpure.jit.native.ir import Buffer, View

from ._scope import Scope


@dataclass(eq=False, slots=True)
class CarrySlot:
    """A value that a loop carries: where a turn reads it and where it writes the next one; they swap."""

    now: View
    next: View


@dataclass(eq=False, slots=True)
class LoopSlice:
    """A pointer that moves with the turns of a loop."""

    buffer: Buffer  # what the body calls it
    base: View
    step: int


@dataclass(eq=False, slots=True)
class Loop:
    """Turns of a body: `length` of them, or while a condition holds."""

    body: Scope
    carried: list[CarrySlot]
    slices: list[LoopSlice]
    length: int | None
    reverse: bool
    setup: Scope  # before the first turn
    teardown: Scope  # after the last
    condition: tuple[Scope, View] | None = None
    outside_reads: set[Buffer] = field(default_factory=set)

    def scopes(self) -> list[Scope]:
        """List the scopes, each of which has temporaries."""
        return [self.setup, self.body, self.teardown, *([self.condition[0]] if self.condition else [])]

    def live_out(self, scope: Scope) -> set[Buffer]:
        """Return which temporaries of one of the scopes the others read."""
        carried = {view.buffer for pair in self.carried for view in (pair.now, pair.next)}
        return carried | ({self.condition[1].buffer} if self.condition and scope is self.condition[0] else set())

    def private_buffers(self) -> set[Buffer]:
        """Return the buffers of which others know nothing."""
        found = {view.buffer for pair in self.carried for view in (pair.now, pair.next)}
        return found | {part.buffer for part in self.slices} | {b for s in self.scopes() for b in s.temporaries}

    def reads(self) -> set[Buffer]:
        """Return what is read, from outside."""
        found = {
            buffer for scope in self.scopes() for item in scope.items for buffer in item.reads()
        } | self.outside_reads
        return found - self.private_buffers()

    def writes(self) -> set[Buffer]:
        """Return what is written, for others."""
        found = {buffer for scope in self.scopes() for item in scope.items for buffer in item.writes()}
        return (found - self.private_buffers()) | {
            part.base.buffer for part in self.slices if part.base.buffer not in self.outside_reads
        }


@dataclass(eq=False, slots=True)
class Branches:
    """One of several scopes, by an index."""

    index: View
    branches: list[Scope]

    def scopes(self) -> list[Scope]:
        """List the scopes, each of which has temporaries."""
        return self.branches

    def live_out(self, scope: Scope) -> set[Buffer]:
        """Return which temporaries of one of the scopes the others read."""
        return set()

    def reads(self) -> set[Buffer]:
        """Return what is read, from outside."""
        found = {buffer for scope in self.branches for item in scope.items for buffer in item.reads()}
        return (found | {self.index.buffer}) - {b for s in self.branches for b in s.temporaries}

    def writes(self) -> set[Buffer]:
        """Return what is written, for others."""
        found = {buffer for scope in self.branches for item in scope.items for buffer in item.writes()}
        return found - {b for s in self.branches for b in s.temporaries}


@dataclass(eq=False, slots=True)
class Callback:
    """A call of Python."""

    number: int
    operands: list[View]
    skip_if: View | None = None  # a bool: there is no call where it holds

    def reads(self) -> set[Buffer]:
        """Return what is read."""
        return {view.buffer for view in (*self.operands, *([self.skip_if] if self.skip_if else []))}

    def writes(self) -> set[Buffer]:
        """Return what is written."""
        return set()
