"""Unmodified modules as pure functions, and back."""

from ._forms import nested as nested
from ._functional import Functional as Functional
from ._functional import functional as functional
from ._functional import make_functional_fwd as make_functional_fwd
