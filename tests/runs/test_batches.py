import itertools

import pytest
import torch

from torchpure import random
from torchpure.runs.fits._batches import batches

X = torch.arange(10.0)[:, None]
KEY = random.key(0)


def rows(size, steps=9, start=0, key=KEY):
    return [x[:, 0].tolist() for x, _ in batches(X, X[:, 0], steps, size, key, start)]


def test_each_epoch_has_every_row_once_in_a_new_order():
    found = rows(4)
    epochs = [sorted(itertools.chain(*found[start : start + 3])) for start in (0, 3, 6)]
    assert epochs == [X[:, 0].tolist()] * 3
    assert [len(batch) for batch in found] == [4, 4, 2] * 3
    assert found[:3] != found[3:6]


@pytest.mark.parametrize("size", [1, 4, 10, None])
def test_batches_from_a_start_are_what_is_left_after_it(size):
    for start in range(10):
        assert rows(size, start=start) == rows(size)[start:]


def test_the_order_comes_from_the_key():
    assert rows(4) == rows(4)
    assert rows(4) != rows(4, key=random.key(1))


def test_inputs_and_targets_stay_together():
    assert all(torch.equal(x[:, 0], y) for x, y in batches(X, X[:, 0], 9, 3, KEY))
