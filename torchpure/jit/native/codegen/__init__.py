"""Kernels → C++ → the command that compiles it."""

from ._toolchain import command as command
from ._translation_unit import Lowered as Lowered
from ._translation_unit import lowered as lowered
