"""Unmodified modules as pure functions, and back."""

from ._ensemble import ensemble as ensemble
from ._ensemble import stack as stack
from ._ensemble import unstack as unstack
from ._functional import Functional as Functional
from ._functional import functional as functional
from ._functional import make_functional_fwd as make_functional_fwd
from ._partition import merge as merge
from ._partition import partition as partition
from .copies import nested as nested
