"""Dropout in the body of a scan: each step draws as in a loop of Python, compiled too."""

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure import random

NET = tp.functional(nn.Dropout(0.5))
X = torch.arange(1.0, 33.0).reshape(4, 8)
KEY = random.key(7)


def _drop(key):
    return NET.apply({}, {}, X, key=key)[0]


def _carried(key, _):
    own, key = random.split(key)
    return key, _drop(own)


def _chain(key):
    for _ in range(3):
        own, key = random.split(key)
        yield own


FORMS = {  # how a step gets its key -> the scan, and the keys of the steps
    "captured": (lambda k: tp.scan(lambda c, _: (c, _drop(k)), X, length=3)[1], lambda k: [k] * 3),
    "split": (
        lambda k: tp.scan(lambda c, own: (c, _drop(own)), X, random.split(k, 3))[1],
        lambda k: random.split(k, 3),
    ),
    "folded": (
        lambda k: tp.scan(lambda c, i: (c, _drop(random.fold_in(k, i))), X, torch.arange(3))[1],
        lambda k: [random.fold_in(k, i) for i in range(3)],
    ),
    "carried": (lambda k: tp.scan(_carried, k, length=3)[1], _chain),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_scan_draws_as_a_loop(form):
    scanned, keys = FORMS[form]
    torch.testing.assert_close(scanned(KEY), torch.stack([_drop(key) for key in keys(KEY)]), rtol=0, atol=0)


@pytest.mark.compile
@pytest.mark.parametrize("form", FORMS)
def test_a_compiled_scan_draws_as_a_loop(form):
    scanned, keys = FORMS[form]
    fast = tp.jit(scanned)
    for seed in (7, 8):
        wanted = torch.stack([_drop(key) for key in keys(random.key(seed))])
        torch.testing.assert_close(fast(random.key(seed)), wanted, rtol=0, atol=0)
    members = random.split(KEY, 2)
    mapped = tp.jit(tp.vmap(scanned))(members)
    torch.testing.assert_close(mapped, torch.stack([scanned(key) for key in members]), rtol=0, atol=0)
