import shlex

import pytest

from torchpure.errors import InputError
from torchpure.runs.fits._config import command, configure


def test_defaults():
    config = configure({"target": " sin(x) ", "learning_rate": None})
    assert config.target == "sin(x)"
    assert (config.domain, config.train_points, config.test_points) == ("x=0:2*pi", 40, 10)
    assert (config.hidden, config.optimizer, config.learning_rate, config.steps) == ((32, 32), "adam", 2e-2, 500)


def test_a_file_has_no_domain_and_no_default_points():
    config = configure({"target": "a.csv", "column": "y", "inputs": "a, b"})
    assert (config.domain, config.train_points, config.test_points) == (None, None, None)
    assert config.inputs == ("a", "b")


def test_the_preset_is_the_article_and_given_options_win():
    config = configure({"target": "x", "preset": "article"})
    assert (config.hidden, config.activation, config.optimizer) == ((5, 5), "tanh", "adam")
    assert (config.learning_rate, config.schedule, config.steps) == (1e-2, "constant", 500)
    assert configure({"target": "x", "preset": "article", "hidden": "7", "learning_rate": 0.5}).learning_rate == 0.5


def test_each_optimizer_has_its_learning_rate():
    assert configure({"target": "x", "optimizer": "sgd"}).learning_rate == 1e-1


def test_only_adamw_decays_weights_by_default():
    assert [configure({"target": "x", "optimizer": name}).weight_decay for name in ("adam", "adamw", "sgd")] == [
        0,
        0.01,
        0,
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": "3,,4"}, "--hidden: wanted an integer"),
        ({"hidden": "0"}, "--hidden: wanted a number greater than or equal to 1, got '0'"),
        ({"hidden": "999999999"}, "--hidden: wanted a number less than or equal to 4096"),
        ({"hidden": ",".join(["4"] * 17)}, "--hidden: .*16"),
        ({"activation": "step"}, "--activation: wanted 'tanh', .* got 'step'"),
        ({"optimizer": "lion"}, "--optimizer: wanted 'adam'"),
        ({"schedule": "step"}, "--schedule: wanted 'constant'"),
        ({"learning_rate": 0.0}, "--learning-rate: wanted a number greater than 0, got '0.0'"),
        ({"learning_rate": float("nan")}, "--learning-rate: wanted a finite number"),
        ({"learning_rate": float("inf")}, "--learning-rate: wanted a finite number"),
        ({"weight_decay": -0.1}, "--weight-decay: wanted a number greater than or equal to 0, got '-0.1'"),
        ({"steps": 0}, "--steps: .*greater than or equal to 1"),
        ({"steps": 10**12}, "--steps: .*less than or equal to 10000000"),
        ({"train_points": 0}, "--train-points: "),
        ({"test_points": 10**9}, "--test-points: .*1000000"),
        ({"seed": -1}, "--seed: "),
        ({"seed": 2**64}, "--seed: "),
        ({"dtype": "float16"}, "--dtype: wanted 'float32' or 'float64'"),
        ({"preset": "other"}, "--preset: wanted 'article'"),
        ({"column": "y"}, "--target: only a data file has columns"),
        ({"missing": "drop"}, "--missing: only a data file has columns"),
        ({"categories": "a"}, "--categories: only a data file has columns"),
        ({"target": "a.csv", "missing": "zero"}, "--missing: wanted 'error', 'drop' or 'mean', got 'zero'"),
        ({"target": "a.csv", "max_memory": "4X"}, "--max-memory: wanted an integer, got '4X'"),
        ({"target": "a.csv", "max_memory": "1K"}, "--max-memory: wanted a number greater than or equal to 1048576"),
        ({"loss": "l2"}, "--loss: wanted 'mse', 'mae', 'huber' or 'cross-entropy', got 'l2'"),
        ({"loss": "cross-entropy"}, "--loss: cross-entropy wants classes"),
        ({"batch_size": 0}, "--batch-size: wanted a number greater than or equal to 1"),
        ({"validation_points": "0"}, "--validation-points: wanted a number of points, or a share below 1, got '0.0'$"),
        (
            {"validation_points": "1.5"},
            "--validation-points: wanted a number of points, or a share below 1, got '1.5'$",
        ),
        ({"validation_points": "some"}, "--validation-points: wanted a number of points, or a share .* got 'some'$"),
        ({"validation_points": 10**18}, "--validation-points: wanted a number less than or equal to"),
        ({"steps": 1.5}, "--steps: wanted an integer, got '1.5'$"),
        ({"stepz": 3}, "--stepz: no such option; did you mean --steps?"),
        ({"batchsize": 3}, "--batchsize: no such option; did you mean --batch-size?"),
        ({"qqqqqq": 3}, "--qqqqqq: no such option$"),
        ({"inputs": "a"}, "--inputs: only a data file has columns"),
        ({"target": "a.csv", "domain": "0:1"}, "--domain: only an expression"),
    ],
)
def test_refused(options, message):
    with pytest.raises(InputError, match=message) as caught:
        configure({"target": "x"} | options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "expected"), [("500M", 500 * 2**20), ("1.5gb", 3 * 2**29), ("2097152", 2**21)])
def test_memory_in_words(text, expected):
    assert configure({"target": "a.csv", "max_memory": text}).max_memory == expected


def test_a_file_of_an_unknown_format(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.xlsx").touch()
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match=r"'data.xlsx' is a file of unknown kind; wanted .csv"):
        configure({"target": "data.xlsx"})
    assert configure({"target": "x"}).target == "x"
    assert configure({"target": "x\0.y"}).target == "x\0.y"


@pytest.mark.parametrize(
    "options",
    [
        {"target": "-x**2", "hidden": "8,4", "seed": 3},
        {"target": "x*y", "domain": "x=-1:1,y=0:1"},
        {"target": "my file.csv", "column": "a b", "inputs": "c,d", "train_points": 4},
        {"target": "x", "preset": "article"},
        {"target": "x", "loss": "huber", "batch_size": 8, "validation_points": 0.25},
        {"target": "a.csv", "column": "a,b", "missing": "mean", "categories": "c,d", "unseen": "error"},
    ],
)
def test_the_command_repeats_all_options(options):
    config = configure(options)
    words = shlex.split(command(config))[2:]
    given = {
        option.removeprefix("--").replace("-", "_"): value
        for option, value in zip(words[1::2], words[2::2], strict=True)
    }
    column = {"column": given.pop("target")} if "target" in given else {}
    numbers = {
        name: float(value) if name in ("learning_rate", "weight_decay", "validation_points") else int(value)
        for name, value in given.items()
        if value.replace(".", "").isdigit() and name != "hidden"
    }
    assert configure({"target": words[0]} | given | numbers | column) == config
