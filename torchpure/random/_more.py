"""Stopgap."""

import math
import torch
from ._draws import uniform, _unit_interval
from ._keys import bits, split


def bernoulli(key, p=0.5, shape=None):
    if shape is None:
        shape = tuple(p.shape) if isinstance(p, torch.Tensor) else ()
    return uniform(key, shape, dtype=torch.float32) < p


def randint(key, shape, low, high, *, dtype=torch.int64):
    n = math.prod(shape)
    w = bits(key, 2 * n)
    return (low + ((w[:n] << 31 ^ w[n:]) & (2**62 - 1)) % (high - low)).reshape(shape).to(dtype)


def exponential(key, shape=(), *, rate=1.0, dtype=torch.float32):
    return -torch.log1p(-uniform(key, shape, dtype=dtype)) / rate


def cauchy(key, shape=(), *, dtype=torch.float32):
    return torch.tan(math.pi * (uniform(key, shape, dtype=dtype) - 0.5))


def geometric(key, p, shape):
    return torch.ceil(torch.log1p(-uniform(key, shape)) / math.log1p(-p)).clamp(min=1)


def gamma(key, c, shape=None):
    raise NotImplementedError


def dirichlet(key, c):
    raise NotImplementedError


def poisson(key, r, shape=None):
    raise NotImplementedError


def multinomial(key, w, n, replacement=False):
    raise NotImplementedError
