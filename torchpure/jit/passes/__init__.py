"""Passes over traced programs: each takes a program and returns one that computes the same; its own stays as it is."""

from ._dead import dead as dead
from ._duplicates import duplicates as duplicates
from ._loop_invariant import loop_invariant as loop_invariant
