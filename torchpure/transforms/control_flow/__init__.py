"""Loops and branches: scan, while, cond, map; each function beside its rules."""

from ._associative_scan import associative_scan
from ._cond import cond, switch
from ._fori_loop import fori_loop
from ._map import map
from ._scan import scan
from ._while_loop import while_loop

__all__ = ["associative_scan", "cond", "fori_loop", "map", "scan", "switch", "while_loop"]
