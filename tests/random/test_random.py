"""Keys and draws."""

import math

import pytest
import torch
from torch.testing import assert_close

from torchpure import random, vmap

WORD = 0xFFFFFFFF
# the published known answers of Philox4x32-10: counter, key, output
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_known_answers(counter, key, expected):
    words = random.philox(tuple(torch.tensor(word) for word in counter), torch.tensor(key))
    assert tuple(int(word) for word in words) == expected


DRAWS = {
    "uniform": lambda key: random.uniform(key, (2, 3), low=-1.0),
    "uniform64": lambda key: random.uniform(key, (5,), dtype=torch.float64),
    "normal": lambda key: random.normal(key, (5,)),
    "bits": lambda key: random.bits(key, 7),
    "permutation": lambda key: random.permutation(key, 9),
    "split": lambda key: random.split(key, 3),
    "fold_in": lambda key: random.fold_in(key, 5),
}


@pytest.mark.parametrize("name", DRAWS)
def test_law_vmap_of_a_draw_equals_the_draw_bit_for_bit(name):
    keys = random.split(random.key(3), 4)
    together = vmap(DRAWS[name])(keys)
    for i in range(4):
        assert torch.equal(together[i], DRAWS[name](keys[i]))
    assert not torch.equal(together[0], together[1])


def test_law_a_longer_split_starts_with_the_shorter_one():
    assert torch.equal(random.split(random.key(7), 9)[:4], random.split(random.key(7), 4))


def test_derived_keys_differ_and_the_global_generator_does_not_change():
    before = torch.get_rng_state()
    key = random.key(1 << 40)
    keys = torch.cat([random.split(key, 500), torch.stack([random.fold_in(key, i) for i in range(500)]), key[None]])
    assert len(keys.unique(dim=0)) == 1001
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mean_and_variance(dtype):
    count = 200_000
    u = random.uniform(random.key(0), (count,), dtype=dtype)
    z = random.normal(random.key(1), (count,), mean=2.0, std=3.0, dtype=dtype)
    assert u.dtype == z.dtype == dtype and u.min() >= 0 and u.max() < 1 and z.isfinite().all()
    error = 5 / math.sqrt(count)  # five standard errors
    assert_close(u.double().mean().item(), 0.5, rtol=0, atol=error / 12**0.5)
    assert_close(u.double().var().item(), 1 / 12, rtol=0, atol=error * 0.08)
    standard = (z.double() - 2) / 3
    for power, moment, spread in ((1, 0, 1), (2, 1, 2**0.5), (3, 0, 15**0.5), (4, 3, 96**0.5)):
        assert_close((standard**power).mean().item(), float(moment), rtol=0, atol=error * spread)
    assert abs((u[1:] - 0.5).double() @ (u[:-1] - 0.5).double()) / count < error / 12


def test_permutation_and_errors():
    assert torch.equal(random.permutation(random.key(0), 1000).sort().values, torch.arange(1000))
    assert random.permutation(random.key(0), 0).shape == (0,)
    for seed in (-1, 1 << 64):
        with pytest.raises(ValueError, match=r"key: the seed must be in \[0, 2\*\*64\)"):
            random.key(seed)
    with pytest.raises(TypeError, match="split: wanted a key, as random.key"):
        random.split(3)
    with pytest.raises(TypeError, match=r"fold_in: wanted a key, .* got torch.float32 of shape \(2,\)"):
        random.fold_in(torch.ones(2), 1)
    with pytest.raises(TypeError, match="wanted a floating point dtype, got torch.int64"):
        random.uniform(random.key(0), (2,), dtype=torch.int64)
