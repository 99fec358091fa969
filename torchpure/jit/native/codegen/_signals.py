"""Loops in C++ end when an error is noted, and when a signal such as Ctrl-C raises an exception.

A program runs without Python's lock, so a handler of signals cannot run meanwhile. Each long loop therefore looks
at the clock now and then. Ten times a second it takes the lock and lets Python run its handlers.
"""

from collections.abc import Sequence
from typing import Any

from torchpure.jit.native.ir import Kernel, Opaque
from torchpure.jit.native.lowering import Branches, Loop
from torchpure.jit.native.optimize import kernel_cost

LEAVE = "if (bad) return bad & 1 ? -2 : -4;"
POLL = """
#include <time.h>
struct Python {
  int (*lock)();
  void (*unlock)(int);
  int (*check_signals)();
  void (*fetch)(void **, void **, void **);
};
struct Poll {
  const Python *python;
  int64_t last = 0;
  __attribute__((noinline, cold)) bool late() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const int64_t tenths = now.tv_sec * 10 + now.tv_nsec / 100000000, before = last;
    last = tenths;
    return before && before != tenths;
  }
  __attribute__((noinline, cold)) bool stopped(int (*hook)(int, void **)) {
    const int held = python->lock();
    const bool raised = python->check_signals();
    void *error[3];
    if (raised) python->fetch(error, error + 1, error + 2), hook(-1, error);
    python->unlock(held);
    return raised;
  }
};
"""
_INTERVAL_COST = 1 << 14  # work between two looks at the clock, in the unit of `kernel_cost`: some microseconds
_UNKNOWN_COST = 1 << 10  # of a call of a library whose work is not known


def polling_interval(loop: Loop) -> int:
    """Return after how many iterations a loop looks at the clock."""
    return max(_INTERVAL_COST // max(_cost(loop.body.items), 1), 1)


def _cost(items: Sequence[Any]) -> int:
    return sum(map(_item_cost, items))


def _item_cost(item: Any) -> int:
    if isinstance(item, Kernel):
        return kernel_cost(item)
    if isinstance(item, Loop):
        return (item.length or 1) * _cost(item.body.items)
    if isinstance(item, Branches):
        return max((_cost(branch.items) for branch in item.branches), default=0)
    return (isinstance(item, Opaque) and item.cost) or _UNKNOWN_COST
