"""Edge cases of draws and keys: ends of intervals, small dtypes, integers of numpy."""

import math

import numpy
import pytest
import torch

from torchpure import random, vmap


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 1.1), (2.9, 3.0), (1e3, 1e3 + 20)])
def test_uniform_never_reaches_its_upper_end(dtype, low, high):
    drawn = random.uniform(random.key(5), (200_000,), low=low, high=high, dtype=dtype)
    ends = torch.tensor([low, high], dtype=dtype)
    assert drawn.dtype == dtype and (drawn >= ends[0]).all() and (drawn < ends[1]).all()
    # rounding to a small dtype shifts the mean by at most half a step
    error = 5 * (high - low) / math.sqrt(12 * drawn.numel()) + torch.finfo(dtype).eps * max(abs(low), abs(high))
    assert abs(drawn.double().mean() - (low + high) / 2) < error


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_normal_is_finite_and_symmetric(dtype):
    drawn = random.normal(random.key(6), (200_000,), dtype=dtype).double()
    assert drawn.isfinite().all() and 4 < drawn.abs().max() < 7
    error = 5 / math.sqrt(drawn.numel())
    assert abs(drawn.mean()) < error and abs(drawn.var() - 1) < 1.5 * error + torch.finfo(dtype).eps
    for edge, share in ((1.0, 0.682689), (2.0, 0.954500), (3.0, 0.997300)):
        assert abs((drawn.abs() < edge).double().mean() - share) < error / 2 + torch.finfo(dtype).eps


def test_an_interval_of_one_value():
    assert torch.equal(random.uniform(random.key(0), (3,), low=2.0, high=2.0), torch.full((3,), 2.0))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 1, 3)])
def test_shapes_of_draws(shape):
    for draw in (random.uniform, random.normal):
        drawn = draw(random.key(0), shape)
        assert drawn.shape == shape and drawn.dtype == torch.float32


def test_bits_are_32_bit_words():
    words = random.bits(random.key(2), 100_000)
    assert words.dtype == torch.int64 and words.min() >= 0 and words.max() < 1 << 32
    ones = torch.stack([(words >> place) & 1 for place in range(32)]).double().mean(1)
    assert ((ones - 0.5).abs() < 5 * 0.5 / math.sqrt(len(words))).all()
    unusual = random.bits(torch.tensor([-1, (1 << 40) + 3]), 1000)  # out of the range of keys that this library makes
    assert unusual.min() >= 0 and unusual.max() < 1 << 32


def test_all_permutations_are_equally_likely():
    orders = vmap(lambda key: random.permutation(key, 3))(random.split(random.key(3), 6000))
    assert torch.equal(orders.sort(-1).values, torch.arange(3).expand(6000, 3))
    counts = (orders * torch.tensor([9, 3, 1])).sum(-1).unique(return_counts=True)[1]
    assert len(counts) == 6 and ((counts - 1000).abs() < 5 * math.sqrt(1000 * 5 / 6)).all()


def test_seeds_can_be_any_integer_type():
    assert torch.equal(random.key(numpy.int64(7)), random.key(7)) and torch.equal(random.key(True), random.key(1))
    assert torch.equal(random.key((1 << 64) - 1), torch.tensor([0xFFFFFFFF, 0xFFFFFFFF]))
    key = random.key(0)
    assert torch.equal(random.fold_in(key, torch.tensor(5)), random.fold_in(key, 5))
    assert torch.equal(random.fold_in(key, torch.tensor([5, -1]))[1], random.fold_in(key, -1))
    assert not torch.equal(random.fold_in(key, 5), random.fold_in(key, 5 + (1 << 32)))
    assert random.split(key, 0).shape == (0, 2)


ERRORS = {
    "float seed": (lambda: random.key(1.0), TypeError, "key: the seed must be an integer, got 1.0"),
    "word seed": (lambda: random.key("a"), TypeError, "key: the seed must be an integer, got 'a'"),
    "float data": (lambda: random.fold_in(random.key(0), 0.5), TypeError, "fold_in: wanted an integer, got 0.5"),
    "float tensor": (
        lambda: random.fold_in(random.key(0), torch.tensor(0.5)),
        TypeError,
        "fold_in: wanted an integer, got a tensor of torch.float32",
    ),
    "long data": (
        lambda: random.fold_in(random.key(0), 1 << 63),
        ValueError,
        r"fold_in: the integer must be in \[-2\*\*63, 2\*\*63\), got 9223372036854775808",
    ),
    "negative number": (lambda: random.bits(random.key(0), -1), ValueError, "must be at least 0, got -1"),
    "negative order": (lambda: random.permutation(random.key(0), -1), ValueError, "must be at least 0"),
    "negative shape": (
        lambda: random.uniform(random.key(0), (-3,)),
        ValueError,
        "sizes must be at least 0, got \\(-3,\\)",
    ),
    "complex": (
        lambda: random.normal(random.key(0), dtype=torch.complex64),
        TypeError,
        "wanted a floating point dtype",
    ),
    "seed for a key": (lambda: random.uniform(0, (2,)), TypeError, r"uniform: wanted a key, .* got 0"),
    "shape of the key": (lambda: random.bits(torch.zeros(3, dtype=torch.int64), 1), TypeError, r"of shape \(3,\)"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_messages(name):
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        call()
