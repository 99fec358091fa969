"""What `--vary` means."""

import math
import sys

import pytest

from torchpure.errors import InputError
from torchpure.runs.sweeps import Axis, make_source, read_axes
from torchpure.runs.sweeps._space import OPTIONS

VALUES = {  # text -> name, values
    "learning_rate=1e-4:1e-1:log:4": ("learning_rate", (1e-4, 1e-3, 1e-2, 1e-1)),
    "lr=0:1:linear:3": ("learning_rate", (0.0, 0.5, 1.0)),
    "weight-decay=0:1:5": ("weight_decay", (0.0, 0.25, 0.5, 0.75, 1.0)),
    "--weight-decay=0.5": ("weight_decay", (0.5,)),
    "seed=3:6": ("seed", (3, 4, 5)),
    "steps=100:300:3": ("steps", (100, 200, 300)),
    "steps=10:1000:log:3": ("steps", (10, 100, 1000)),
    "seed = 1 | 2": ("seed", (1, 2)),
    "hidden=16|64,64": ("hidden", ("16", "64,64")),
    "target=price|rent": ("column", ("price", "rent")),
}


@pytest.mark.parametrize("text", VALUES)
def test_values(text):
    (axis,) = read_axes([text], "grid")
    assert (axis.name, axis.values) == VALUES[text]


WRONG = {
    "learnin_rate=1|2": "did you mean `learning_rate`",
    "zzz=1": "unknown option 'zzz' .*wanted one of learning_rate",
    "seed": "wanted NAME=LOW:HIGH",
    "seed=": "wanted NAME=LOW:HIGH",
    "seed=3:3": "the lower bound first",
    "seed=0:1000000": "1000000 members are too many",
    "seed=1.5|2": "wanted an integer for '1.5'",
    "lr=1:0:3": "the lower bound first",
    "lr=0:1:log:3": "two positive bounds",
    "lr=1:2:log": "a grid wants the number of values",
    "lr=1:2": "a grid wants the number of values, as in learning_rate=1:2:8",
    "lr=1:2:3:4": "wanted NAME=LOW:HIGH",
    "lr=1:log:2:3": "wanted NAME=LOW:HIGH",
    "lr=1:2:1": "wanted 2 to 100000 values",
    "lr=1:2:x": "wanted an integer for 'x'",
    "lr=nan|1": "wanted a finite number for 'nan'",
    "lr=1||2": "wanted a finite number for ''",
    "lr=a:b:3": "wanted a finite number for 'a'",
    "steps=1:3:9": "not 9 different integers",
    "hidden=4||5": "wanted a value for ''",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_spaces_are_refused_in_one_line(text):
    with pytest.raises(InputError, match=WRONG[text]) as caught:
        read_axes([text], "grid")
    assert "\n" not in str(caught.value)


def test_several_grids_multiply():
    axes = read_axes(["seed=0:2", "hidden=4|8"], "grid")
    points = make_source(axes, "grid", None, 0).ask()
    assert points == [{"seed": s, "hidden": h} for s in (0, 1) for h in ("4", "8")]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "at least one option"),
        ({"seed": []}, "seed has no values"),
        ({"seed": [1], "--seed": [2]}, "seed is given twice"),
        ({"lr": ["a"]}, "wanted a finite number"),
        (["seed=1", "seed=2"], "seed is given twice"),
    ],
)
def test_spaces_of_lists(space, message):
    with pytest.raises(InputError, match=message):
        read_axes(space, "grid")


def test_a_grid_that_is_too_large():
    with pytest.raises(InputError, match="1000000 members are too many"):
        make_source(read_axes(["seed=0:1000", "lr=1:2:1000"], "grid"), "grid", None, 0)


def test_random_points_are_in_their_ranges_and_reproducible():
    axes = read_axes(["lr=1e-4:1e-1:log", "seed=5:9", "hidden=4|8", "weight_decay=0:1"], "random")
    points = make_source(axes, "random", 400, 1).ask()
    assert points == make_source(axes, "random", 400, 1).ask() != make_source(axes, "random", 400, 2).ask()
    assert {point["seed"] for point in points} == {5, 6, 7, 8}
    assert {point["hidden"] for point in points} == {"4", "8"}
    logs = [math.log10(point["learning_rate"]) for point in points]
    assert -4 <= min(logs) < -3.9 and -1.1 < max(logs) < -1 and abs(sum(logs) / 400 + 2.5) < 0.15
    assert all(0 <= point["weight_decay"] < 1 for point in points)


@pytest.mark.parametrize(
    ("sampler", "trials", "message"),
    [
        ("random", None, "--trials: --sampler random wants a number"),
        ("random", 0, "at least 1, got 0"),
        ("random", 10**6, "are too many"),
        ("grid", 3, "a grid takes all points"),
    ],
)
def test_trials(sampler, trials, message):
    with pytest.raises(InputError, match=message):
        make_source(read_axes(["seed=0:2"], sampler), sampler, trials, 0)


def test_a_range_of_integers_has_a_count():
    with pytest.raises(InputError, match="steps wants the number of values, as in steps=10:99:log:8"):
        read_axes(["steps=10:99:log"], "random")


def test_an_unknown_sampler():
    with pytest.raises(InputError, match="--sampler: wanted grid, random or optuna, got 'sobol'"):
        read_axes(["seed=0:2"], "sobol")


def test_a_space_as_text_is_parsed_to_the_same_space():
    for name, option in OPTIONS.items():
        if option.kind == "number":
            axis = Axis(name, (), 0.1, 0.30000000000000004, log=True)
            assert read_axes([str(axis)], "random") == [axis]
        axis = Axis(name, {"number": (0.1, 1e-300), "integer": (1, 2), "text": ("a", "b,c")}[option.kind])
        assert read_axes([str(axis)], "grid") == [axis]


def optuna_rounds(axes, trials, seed=0):
    source, rounds = make_source(axes, "optuna", trials, seed), []
    while points := source.ask():
        rounds.append(points)
        source.tell([None if i % 5 == 4 else abs(math.log10(p["learning_rate"]) + 2) for i, p in enumerate(points)])
    return rounds


def test_optuna_is_asked_for_rounds_and_told_their_losses():
    pytest.importorskip("optuna")
    axes = read_axes(["lr=1e-4:1:log", "hidden=4|8", "seed=5:9"], "optuna")
    rounds = optuna_rounds(axes, 43)
    assert list(map(len, rounds)) == [5] * 8 + [3]
    assert rounds == optuna_rounds(axes, 43) != optuna_rounds(axes, 43, seed=1)
    points = [point for points in rounds for point in points]
    assert all(
        1e-4 <= p["learning_rate"] <= 1 and p["hidden"] in ("4", "8") and p["seed"] in range(5, 9) for p in points
    )
    distance = [abs(math.log10(point["learning_rate"]) + 2) for point in points]
    assert sum(distance[-20:]) < sum(distance[:20])  # it learns where the loss is small


def test_optuna_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"--sampler optuna: needs optuna: pip install 'torchpure\[sweep\]'"):
        make_source(read_axes(["lr=1e-4:1:log"], "optuna"), "optuna", 4, 0)
