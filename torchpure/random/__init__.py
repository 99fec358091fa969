"""Randomness from keys: counter based, the same bits everywhere, no global generator."""

from ._draws import normal as normal
from ._draws import permutation as permutation
from ._draws import uniform as uniform
from ._keys import bits as bits
from ._keys import check_key as check_key
from ._keys import fold_in as fold_in
from ._keys import key as key
from ._keys import split as split
from ._philox import philox as philox
from ._more import *  # noqa
