"""The examples run and give the documented results."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "examples"


def _main(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


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


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_short_and_has_a_test(path):
    assert len(path.read_text().splitlines()) < 100
    assert f'_main("{path.stem}")' in Path(__file__).read_text()
