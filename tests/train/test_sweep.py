"""Sweeps: the points of a space, groups of members; each member equals its run alone."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure import random
from torchpure.errors import TransformError
from torchpure.train import Sweep, best, choice, log_uniform, member, sweep, uniform

KEY = random.key(0)
X = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
Y = torch.sin(3 * X)
NETS = {
    width: tp.functional(nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1)).double())
    for width in (3, 4)
}


def start(net, key):
    keys = random.split(key, len(net.params))
    draws = (
        random.uniform(k, value.shape, dtype=value.dtype) for k, value in zip(keys, net.params.values(), strict=True)
    )
    return {name: draw - 0.5 for name, draw in zip(net.params, draws, strict=True)}


def train(key, learning_rate, width=3, optimizer=tp.optim.adam, steps=6, batch_size=None):
    k_start, k_order = random.split(key)
    result = tp.fit(
        NETS[width], (X, Y), optimizer=optimizer(learning_rate), steps=steps, params=start(NETS[width], k_start),
        batch_size=batch_size, key=k_order,
    )  # fmt: skip
    return {"loss": result.history[-1], "steps": steps, "width": result.params["0.bias"].shape[0]}


def check_members(made, train, tolerance=1e-10):
    for index in range(len(made.points)):
        point, key, result = member(made, index)
        solo = train(key, **point)
        for path, one, other in zip(tp.tree.paths(solo), tp.tree.leaves(result), tp.tree.leaves(solo), strict=True):
            other = torch.as_tensor(other)
            torch.testing.assert_close(one, other.to(one.dtype), rtol=tolerance, atol=0, equal_nan=True, msg=path)


# --- members ---


@pytest.mark.compile
def test_each_compiled_member_equals_its_run_alone():
    space = {"learning_rate": [0.01, 0.02], "width": [3, 4], "steps": [50]}
    made = sweep(train, space, key=KEY, seeds=3)
    assert made.results["loss"].shape == (12,) and made.results["steps"].tolist() == [50] * 12
    assert made.results["width"].tolist() == [3] * 3 + [4] * 3 + [3] * 3 + [4] * 3
    check_members(made, train)
    assert len(made.results["loss"].unique()) == 12


@pytest.mark.compile
def test_many_compiled_members_equal_their_runs_alone():
    made = sweep(train, {"learning_rate": log_uniform(1e-3, 1e-1)}, key=KEY, method="sobol", num=20)
    check_members(made, train)


@pytest.mark.parametrize("options", [{}, {"batch_size": [4]}, {"batch_size": [5]}, {"optimizer": [tp.optim.sgd]}])
def test_each_uncompiled_member_equals_its_run_alone(options):
    check_members(sweep(train, {"learning_rate": [0.01, 0.1], **options}, key=KEY, seeds=2, jit=False), train)


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.compile)])
def test_a_member_that_is_nan_does_not_change_others(jit):
    def run(key, learning_rate):
        return tp.fit(
            NETS[3], (X, Y), optimizer=tp.optim.sgd(learning_rate), steps=60, params=start(NETS[3], key)
        ).params

    made = sweep(run, {"learning_rate": [0.1, 1e300, 0.2]}, key=KEY, jit=jit)
    assert [bool(leaf.isfinite().all()) for leaf in made.results["0.bias"]] == [True, False, True]
    check_members(made, run)


def test_members_do_not_affect_each_other():
    """No bit of a member depends on the values of the others: a norm that overflows has another kernel."""

    def run(key, learning_rate):
        def loss(w):
            return ((X @ w).norm(dim=-1) - 1).square().sum() + (w.std() - 1) ** 2

        w = torch.linspace(0.1, 0.7, X.shape[-1] * 3, dtype=X.dtype).reshape(-1, 3)
        for _ in range(20):
            w = w - learning_rate.to(w) * tp.grad(loss)(w)
        return w

    made, others = (sweep(run, {"learning_rate": [0.01, rate, 0.05]}, jit=False).results for rate in (0.02, 1e200))
    assert not others[1].isfinite().all()
    assert torch.equal(made[::2], others[::2])


def test_keys_of_members_do_not_depend_on_groups_and_seeds():
    def keep(key, **point):
        return key

    few = sweep(keep, {"learning_rate": [0.1, 0.2]}, key=KEY, seeds=2, jit=False)
    many = sweep(keep, {"learning_rate": [0.1, 0.2], "name": ["a"]}, key=KEY, seeds=3, jit=False)
    assert torch.equal(few.keys, few.results) and torch.equal(many.keys, many.results)
    assert torch.equal(few.keys.view(2, 2, 2), many.keys.view(2, 3, 2)[:, :2])
    assert len(many.keys.unique(dim=0)) == 6
    apart = sweep(keep, {"name": [1, 2]}, key=KEY, seeds=2, jit=False)
    assert torch.equal(apart.results, few.keys)


def test_results_that_differ_in_shape_are_a_list():
    made = sweep(
        lambda key, width, learning_rate: torch.ones(width) * learning_rate,
        {"width": [2, 3], "learning_rate": [1.0, 2.0]},
        jit=False,
    )
    assert [one.tolist() for one in made.results] == [[1, 1], [2, 2], [1, 1, 1], [2, 2, 2]]
    assert made.keys is None and member(made, 2).result.tolist() == [1, 1, 1]
    assert best(made, lambda result: -result.sum()).point == {"width": 3, "learning_rate": 2.0}


def test_floats_and_tensors_are_batched_and_other_values_are_not():
    seen = []

    def look(key, **point):
        seen.append({name: type(value).__name__ for name, value in point.items()})
        return torch.zeros(())

    values = {
        "learning_rate": [0.5, 0.6],
        "count": [1, 2],
        "flag": [True],
        "name": ["a"],
        "opt": [tp.optim.sgd(0.1)],
        "list": [[1]],
    }
    sweep(look, {**values, "tensor": torch.tensor([1, 2])}, jit=False)
    kinds = {
        "learning_rate": "Tensor",
        "count": "int",
        "flag": "bool",
        "name": "str",
        "opt": "Optimizer",
        "list": "list",
    }
    assert seen == [{**kinds, "tensor": "Tensor"}] * 2


def test_without_a_key_members_that_are_equal_run_once():
    calls = []
    made = sweep(lambda key, n: calls.append(n) or torch.tensor(float(n)), [{"n": 1}, {"n": 2}, {"n": 1}], jit=False)
    assert calls == [1, 2] and made.results.tolist() == [1, 2, 1]
    assert sweep(lambda key: random.uniform(key, ()), [{}], key=KEY, seeds=4, jit=False).results.unique().numel() == 4


def test_best_skips_nan():
    made = Sweep([{"n": n} for n in range(4)], None, torch.tensor([math.nan, 2.0, 1.0, math.inf]))
    assert best(made).point == {"n": 2}
    with pytest.raises(ValueError, match="best: all 1 members give NaN"):
        best(Sweep([{}], None, torch.tensor([math.nan])))


# --- spaces ---


def points(space, **options):
    return sweep(lambda key, **point: 0, space, jit=False, **options).points


def test_values_can_be_a_range_or_an_array():
    space = {"n": range(2), "learning_rate": np.logspace(-2, -1, 2)}
    made = sweep(lambda key, n, learning_rate: torch.as_tensor(learning_rate * (n + 1)), space, key=KEY)
    torch.testing.assert_close(made.results, torch.tensor([0.01, 0.1, 0.02, 0.2]), check_dtype=False)


def test_a_grid_has_all_combinations_in_order():
    assert points({"a": [1, 2], "b": ("x", "y")}) == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"},
    ]  # fmt: skip
    assert points([{"a": 3}, {"a": 1}]) == [{"a": 3}, {"a": 1}]


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_ranges_are_covered_evenly(method):
    space = {"a": uniform(-1.0, 3.0), "b": log_uniform(1e-4, 1e0), "c": choice(["x", "y"]), "d": [1, 2, 3]}
    before = torch.get_rng_state()
    made = points(space, key=KEY, method=method, num=256)
    assert torch.equal(torch.get_rng_state(), before)
    assert (
        made
        == points(space, key=KEY, method=method, num=256)
        != points(space, key=random.key(1), method=method, num=256)
    )
    slack = 1.5 / 256 if method == "sobol" else 0.1
    shares = {
        "a": sum(point["a"] < 1 for point in made), "b": sum(point["b"] < 1e-2 for point in made),
        "c": sum(point["c"] == "x" for point in made),
    }  # fmt: skip
    assert all(abs(count / 256 - 0.5) <= slack for count in shares.values())
    assert all(-1 <= point["a"] < 3 and 1e-4 <= point["b"] < 1 for point in made) and {1, 2, 3} == {
        p["d"] for p in made
    }


ERRORS = {
    "empty": ({}, {}, ValueError, r"the space is empty; to vary only the seeds, pass \[\{\}\]"),
    "no points": ([], {}, ValueError, "the space is empty: there are no points"),
    "no values": ({"a": []}, {}, ValueError, "the space is empty: `a` has no values"),
    "kind": (3, {}, TypeError, "space must be a dict of values by name, or a list of dicts, got int 3"),
    "one value": (
        {"a": 0.1},
        {},
        TypeError,
        "`a` must have a list, a tuple, a tensor or array of one dimension or a range",
    ),
    "matrix": ({"a": torch.ones(2, 2)}, {}, TypeError, "`a` must have a list"),
    "method": ({"a": [1]}, {"method": "best"}, ValueError, '"grid", "random" or "sobol", got \'best\''),
    "no num": ({"a": [1]}, {"method": "random"}, ValueError, "needs a key, and num, at least 1; got num=None"),
    "no key": ({"a": [1]}, {"method": "sobol", "num": 2, "key": None}, ValueError, "needs a key"),
    "num": ({"a": [1]}, {"method": "sobol", "num": 0}, ValueError, "got num=0"),
    "num of a grid": ({"a": [1]}, {"num": 2}, ValueError, "a grid takes all points"),
    "range in a grid": ({"a": uniform(0, 1)}, {}, ValueError, r"`a` is uniform\(0, 1\), but a grid wants a list"),
    "names": ([{"a": 1}, {"b": 1}], {}, ValueError, r"point 0 has \['a'\], point 1 has \['b'\]"),
    "method of points": ([{"a": 1}], {"method": "random", "num": 1}, ValueError, "leave out method and num"),
    "key": ({"key": [1]}, {}, ValueError, "`key` is the first argument of train"),
    "seeds": ({"a": [1]}, {"seeds": 0}, ValueError, "seeds must be an integer of at least 1"),
    "seeds without a key": ({"a": [1]}, {"seeds": 2, "key": None}, ValueError, "more than 1 need a key"),
    "argument": ({"b": [1]}, {}, TypeError, r"sweep: train\(key, b=…\): "),
    "result": ({"a": ["text"]}, {}, TypeError, "train must return tensors and numbers, got str 'text' at `out`"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_messages(name):
    space, options, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        sweep(lambda key, a: {"out": a}, space, **{"key": KEY, "jit": False, **options})


def test_a_branch_on_a_batched_value_names_the_function():
    def branch(key, learning_rate):
        return learning_rate if learning_rate > 0.5 else -learning_rate

    with pytest.raises(TransformError, match="`test_a_branch.*branch|`branch`"):
        sweep(branch, {"learning_rate": [0.1, 0.9]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform(1, 1), "uniform: wanted finite bounds, the lower one first, got 1 and 1"),
        (lambda: uniform(0, math.inf), "uniform: wanted finite bounds"),
        (lambda: log_uniform(0, 1), "log_uniform: bounds must be positive, got 0"),
        (lambda: choice([]), "choice: there are no values"),
    ],
)
def test_ranges_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_best_says_what_it_wants():
    found = tp.train.Sweep([{"rate": 0.1}, {"rate": 0.2}], None, {"loss": torch.tensor([3.0, 2.0])})
    with pytest.raises(TypeError, match="best: by must be a function, got str 'loss': pass by= a function of a result"):
        tp.train.best(found, by="loss")
    with pytest.raises(TypeError, match="best: wanted one number for each member, got .*: pass by= a function"):
        tp.train.best(found)


def test_a_training_that_needs_a_key_says_so():
    with pytest.raises(TypeError, match=r"sweep: train uses its key; pass key=tp.random.key\(0\) to sweep"):
        tp.sweep(lambda key, rate: tp.random.normal(key, ()) * rate, {"rate": [0.1]}, jit=False)
    with pytest.raises(TypeError, match="its first argument is the key"):
        tp.sweep(lambda rate: rate, {"rate": [0.1]}, jit=False)


def test_results_of_different_shapes_are_shown_as_a_list():
    found = tp.sweep(lambda key, width: torch.ones(width), {"width": [1, 2]}, jit=False)
    assert "results: a list of 2, because their shapes differ" in repr(found)


def test_a_fit_that_ended_in_nan_says_where():
    x = torch.ones(4, 1)
    options = {"optimizer": tp.optim.sgd(1e30), "steps": 6, "params": torch.tensor(1.0)}
    result = tp.fit(lambda p, x: ((p * x - 2) ** 2).mean(), x, **options)
    first = int((~result.history.isfinite()).nonzero()[0]) + 1
    assert f"(not finite from step {first} on" in repr(result)


def test_a_function_of_parameters_is_no_module():
    with pytest.raises(TypeError, match=r"functional: wanted an nn.Module or what makes one, got <lambda>\(p, x\)"):
        tp.functional(lambda p, x: p * x)
