"""Loops and branches: scan, while, cond, map; each function beside its rules."""

from ._associative_scan import associative_scan as associative_scan
from ._cond import cond as cond
from ._cond import switch as switch
from ._fori_loop import fori_loop as fori_loop
from ._map import map as map
from ._scan import scan as scan
from ._while_loop import while_loop as while_loop
