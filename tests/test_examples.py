"""The examples run and give the documented results."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from daily import proof

FOLDER = Path(__file__).parents[1] / "examples"


def _main(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_training_on_many_devices_runs_on_one():
    history = _main("data_parallel")(steps=20, jit=False).history
    assert history[-1] < history[0]
    stages = _main("zero")(steps=3)  # tests/parallel runs both on two processes
    assert all(torch.allclose(torch.tensor(losses), torch.tensor(stages[0])) for losses in stages)


def test_low_rank_adaptation():
    before, after = _main("lora")()
    assert after < 0.01 * before


@pytest.mark.compile
def test_poisson():
    assert _main("poisson")() < 2e-3


@pytest.mark.compile
def test_burgers_learns_in_a_few_steps():
    assert _main("burgers")(adam_steps=300, lbfgs_steps=100, points=500) < 0.6


@pytest.mark.compile
def test_helmholtz_learns_in_a_few_steps(tmp_path):
    picture = tmp_path / "u.png"
    assert _main("helmholtz")(adam_steps=400, lbfgs_steps=400, points=500, picture=picture) < 0.1
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.proof
@pytest.mark.compile
def test_allen_cahn_learns_in_a_few_steps(tmp_path):
    picture = tmp_path / "u.png"
    assert _main("allen_cahn")(adam_steps=200, lbfgs_steps=100, points=300, picture=picture) < 0.5
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.proof
@pytest.mark.parametrize(("name", "bound"), [("burgers", 5e-3), ("allen_cahn", 5e-3), ("helmholtz", 1e-3)])
def test_equations_are_solved(name, bound):
    run = {"burgers": _main("burgers"), "allen_cahn": _main("allen_cahn"), "helmholtz": _main("helmholtz")}[name]
    assert run() < bound


def test_a_sweep_on_an_executor_has_the_results_of_one_process(tmp_path):
    main = _main("cluster_sweep")
    wanted = main(None, steps=2, seeds=3, jit=False).results
    with ThreadPoolExecutor(2) as executor:
        for _ in range(2):  # the second call finds the finished chunks
            found = main(executor, tmp_path / "sweep", steps=2, seeds=3, jit=False)
            assert torch.equal(found.results, wanted)


@pytest.mark.compile
@pytest.mark.parametrize(
    ("method", "least"),
    [
        ("MAML", 2),
        proof("first order", 2),
        proof("ANIL", 1.5),
        proof("learned rates", 2),
    ],
)
def test_meta_learning_of_sines(method, least):
    before, after = _main("maml")(method)
    assert least * after < before


@pytest.mark.proof
def test_reptile():
    before, after = _main("reptile")()
    assert 4 * after < before


@pytest.mark.proof
def test_implicit_meta_learning():
    before, after = _main("implicit_maml")()
    assert 1.2 * after < before


@pytest.mark.proof
def test_a_learned_optimizer_is_better_than_adam():
    found = _main("learned_optimizer")()
    assert found["learned"] < found["adam"] and found["learned"] < found["sgd"]


@pytest.mark.proof
def test_a_learned_loss_ignores_outliers():
    square, robust = _main("learned_loss")()
    assert 10 * robust < square


def test_weights_of_wrong_labels_become_small():
    before, after, bad, good = _main("data_reweighting")(meta_steps=15)
    assert after > before and 10 * bad < good


@pytest.mark.proof
def test_distilled_points_train_better_than_real_ones():
    before, after = _main("dataset_distillation")()
    assert after > before + 0.2


@pytest.mark.proof
def test_an_equilibrium_layer_learns_a_sine():
    before, after = _main("equilibrium")()
    assert 50 * after < before


@pytest.mark.proof
def test_hyper_gradients_of_ridge_and_weight_decay():
    (_, after, best), (found, difference, decay_before, decay_after) = _main("hyper_gradients")()
    assert after < 1.02 * best
    assert abs(found - difference) < 1e-3 * abs(difference)
    assert 2 * decay_after < decay_before


def test_the_hyper_gradient_of_ridge_leads_to_the_best_strength():
    module = _main("hyper_gradients").__globals__
    before, after, best = module["ridge"]()
    assert after < 1.02 * best < before


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_short_and_has_a_test(path):
    assert len(path.read_text().splitlines()) < 100
    assert f'_main("{path.stem}")' in Path(__file__).read_text()
