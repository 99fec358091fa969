import hashlib

import pytest
import torch

from torchpure import random
from torchpure.errors import InputError
from torchpure.runs.fits._config import configure
from torchpure.runs.fits._points import compile_truth, load

KEY = random.key(3)


def test_points_of_an_expression():
    data = load(configure({"target": "x*y", "domain": "x=0:1,y=-3:-2", "train_points": 30, "test_points": 7}), KEY)
    assert data.inputs == ("x", "y")
    assert data.train.x.shape == (30, 2)
    assert data.test.x.shape == (7, 2)
    x, y = torch.cat([data.train.x, data.test.x]).unbind(1)
    assert x.min() >= 0
    assert x.max() < 1
    assert y.min() >= -3
    assert y.max() < -2
    assert torch.equal(torch.cat([data.train.y, data.test.y]), x * y)


def test_points_depend_only_on_the_key():
    config = configure({"target": "x"})
    assert torch.equal(load(config, KEY).train.x, load(config, KEY).train.x)
    assert not torch.equal(load(config, KEY).train.x, load(config, random.key(4)).train.x)


def test_a_constant_gives_one_value_per_point():
    assert load(configure({"target": "3"}), KEY).train.y.tolist() == [3.0] * 40


def test_truth_takes_rows():
    truth = compile_truth("x - y", {"x": (0, 1), "y": (0, 1)})
    assert truth(torch.tensor([[3.0, 1.0]], dtype=torch.float64)).tolist() == [2.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"target": "log(x)", "domain": "-2:-1"},
            r"`log\(x\)` is not finite \(nan\) at x = -1\.\d+; choose another --domain",
        ),
        ({"target": "x/(y-y)", "domain": "x=1:2,y=0:1"}, r"is not finite \(inf\) at x = .*, y = "),
        ({"target": "9**9**9"}, "is not finite"),
        ({"target": "x*1e200"}, r"is larger than 1e\+100"),
    ],
)
def test_refused_values(options, message):
    with pytest.raises(InputError, match=message):
        load(configure(options), KEY)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,y\n" + "".join(f"{i},{10 * i}\n" for i in range(11)))
    return path


@pytest.mark.parametrize(
    ("options", "num_train", "num_test"),
    [
        ({}, 9, 2),
        ({"train_points": 4}, 4, 7),
        ({"test_points": 4}, 7, 4),
        ({"train_points": 3, "test_points": 2}, 3, 2),
    ],
)
def test_rows_of_a_file(path, options, num_train, num_test):
    data = load(configure({"target": str(path), "column": "y"} | options), KEY)
    rows = torch.cat([data.train.x, data.test.x])[:, 0]
    assert (len(data.train.y), len(data.test.y)) == (num_train, num_test)
    assert len(rows.unique()) == num_train + num_test
    assert torch.equal(torch.cat([data.train.y, data.test.y]), 10 * rows)
    assert data.bounds == [(0.0, 10.0)]
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("options", [{"train_points": 11}, {"test_points": 11}, {"train_points": 6, "test_points": 6}])
def test_refused_split_sizes(path, options):
    with pytest.raises(InputError, match="the file has 11 rows"):
        load(configure({"target": str(path), "column": "y"} | options), KEY)


@pytest.mark.parametrize("options", [{"validation_points": 3}, {"validation_points": 0.3, "train_points": 5}])
def test_validation_points_come_between_training_and_test(path, options):
    data = load(configure({"target": str(path), "column": "y"} | options), KEY)
    assert len(data.validation.y) == 3
    rows = torch.cat([sample.y for sample in (data.train, data.validation, data.test)])
    assert sorted(rows.tolist()) == [10.0 * row for row in range(11)]


def test_an_expression_can_have_validation_points():
    config = configure({"target": "2*x", "validation_points": 0.25})
    data = load(config, KEY)
    assert [len(sample.y) for sample in (data.train, data.validation, data.test)] == [40, 10, 10]
    assert torch.equal(data.validation.y, 2 * data.validation.x[:, 0])


def test_categories_must_be_inputs(path):
    with pytest.raises(InputError, match="--categories: `z` is no input column; wanted of x"):
        load(configure({"target": str(path), "column": "y", "categories": "z"}), KEY)


def test_one_complete_row_is_too_few(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n,4\n3,\n")
    with pytest.raises(InputError, match="1 rows of data; wanted at least 2"):
        load(configure({"target": str(tmp_path / "a.csv"), "column": "y", "missing": "drop"}), KEY)


def test_two_rows_give_one_to_train_and_one_to_test(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n")
    data = load(configure({"target": str(tmp_path / "a.csv"), "column": "y"}), KEY)
    assert len(data.train.y) == len(data.test.y) == 1
