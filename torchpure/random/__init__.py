"""Random numbers from keys: counter based, the same bits on every device, no global generator."""

from ._discrete import bernoulli, categorical, choice, geometric, multinomial, permutation, poisson, randint
from ._draws import cauchy, exponential, gumbel, laplace, log_normal, normal, truncated_normal, uniform
from ._gamma import dirichlet, gamma
from ._keys import bits, check_key, fold_in, key, split
from ._philox import philox

__all__ = [
    "bernoulli",
    "bits",
    "categorical",
    "cauchy",
    "check_key",
    "choice",
    "dirichlet",
    "exponential",
    "fold_in",
    "gamma",
    "geometric",
    "gumbel",
    "key",
    "laplace",
    "log_normal",
    "multinomial",
    "normal",
    "permutation",
    "philox",
    "poisson",
    "randint",
    "split",
    "truncated_normal",
    "uniform",
]
