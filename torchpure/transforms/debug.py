"""Looks at values from inside of transforms and compiled programs."""

from ._debug import callback as callback
from ._debug import print as print
