"""Random numbers from keys: counter based, the same bits on every device, no global generator."""

from ._discrete import bernoulli as bernoulli
from ._discrete import categorical as categorical
from ._discrete import choice as choice
from ._discrete import geometric as geometric
from ._discrete import multinomial as multinomial
from ._discrete import permutation as permutation
from ._discrete import poisson as poisson
from ._discrete import randint as randint
from ._draws import cauchy as cauchy
from ._draws import exponential as exponential
from ._draws import gumbel as gumbel
from ._draws import laplace as laplace
from ._draws import log_normal as log_normal
from ._draws import normal as normal
from ._draws import truncated_normal as truncated_normal
from ._draws import uniform as uniform
from ._gamma import dirichlet as dirichlet
from ._gamma import gamma as gamma
from ._keys import bits as bits
from ._keys import check_key as check_key
from ._keys import fold_in as fold_in
from ._keys import key as key
from ._keys import split as split
from ._philox import philox as philox
