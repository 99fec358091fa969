"""Looks at values from inside of transforms and compiled programs."""

from ._callback import callback as callback
from ._callback import print as print
from ._check import check as check
