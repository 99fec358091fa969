"""Compiled functions: traced once, run as one program."""

from ._jit import Jitted as Jitted
from ._jit import jit as jit
from ._lowered import Cost as Cost
from ._lowered import Lowered as Lowered
