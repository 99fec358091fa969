import json
import shlex

import pytest
import torch
from safetensors.torch import load_file

from torchpure import __version__, random
from torchpure.cli import main
from torchpure.runs import _run
from torchpure.runs._run import run, summary
from torchpure.runs.fits._config import FitConfig, configure
from torchpure.runs.fits._network import build
from torchpure.runs.fits._points import load

SMALL = {"target": "2*sin(x + 2*pi)", "hidden": "4", "steps": 5}
FILES = ["checkpoints", "config.json", "fit.png", "loss.png", "metrics.jsonl", "params.safetensors", "result.json"]


pytestmark = pytest.mark.usefixtures("here")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_saves_these_files(here, listing, real_pictures):
    done = run(configure(SMALL))
    assert str(done.directory) == "runs/2-sin-x-2-pi"
    assert (listing(done.directory)) == FILES
    assert done.parameters == 13
    *steps, last = lines(done.directory / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5]
    assert [step["loss"] for step in steps] == list(done.fit.losses)
    assert last["test_loss"] == done.fit.test_loss
    assert (last["status"], last["steps"]) == ("done", 5)


@pytest.mark.parametrize(
    "extra", [{}, {"preset": "article"}, {"target": "x*y", "domain": "x=0:1,y=0:1", "dtype": "float64"}]
)
def test_the_saved_run_reproduces_the_predictions(extra):
    done = run(configure(SMALL | extra))
    saved = json.loads((done.directory / "config.json").read_text())
    config = FitConfig.model_validate(saved["config"])
    data = load(config, random.split(random.key(config.seed))[0])
    network = build(config, data.train, data.preprocessing)
    network.load_state_dict(load_file(done.directory / "params.safetensors"))
    with torch.no_grad():
        assert float((network(data.test.x) - data.test.y).square().mean()) == done.fit.test_loss
    assert saved["torch"] == torch.__version__
    assert saved["torchpure"] == __version__


def test_the_saved_command_repeats_the_run(capsys):
    done = run(configure(SMALL | {"seed": 7, "learning_rate": 0.03}))
    saved = json.loads((done.directory / "config.json").read_text())
    assert main([*shlex.split(saved["command"])[1:], "--quiet", "--out", "again"]) == 0
    first, second = (load_file(f"{folder}/params.safetensors") for folder in (done.directory, "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first.keys() == second.keys()


def test_the_hash_of_a_file_is_saved(here):
    (here / "points.csv").write_text("x,y\n" + "".join(f"{i},{i * i}\n" for i in range(10)))
    done = run(configure({"target": "points.csv", "column": "y", "steps": 3}))
    assert str(done.directory) == "runs/points-y"
    data = json.loads((done.directory / "config.json").read_text())["data"]
    assert data["inputs"] == ["x"]
    assert len(data["sha256"]) == 64


def test_global_state_does_not_change(here):
    before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    run(configure(SMALL))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_default_dtype(), torch.get_num_threads()) == before[1:]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["fit", "open_log"])
def test_an_error_before_the_first_checkpoint_leaves_no_files(here, monkeypatch, error, place, listing):
    def crash(*arguments, **options):
        raise error

    monkeypatch.setattr(_run, place, crash)
    with pytest.raises(error):
        run(configure(SMALL))
    assert listing(here) == []


def test_a_diverged_run_is_saved_as_json(here, listing):
    done = run(configure(SMALL | {"optimizer": "sgd", "learning_rate": 1e38}))
    assert done.fit.code == 1
    assert (listing(done.directory)) == FILES
    assert summary(configure(SMALL), done)["status"] == "diverged"
    assert lines(done.directory / "metrics.jsonl")[-1]["status"] == "diverged"


def test_a_number_that_is_not_finite_is_null_in_json():
    config = configure(SMALL)
    done = run(config)
    infinite = done._replace(fit=done.fit._replace(test_loss=float("inf")))
    assert summary(config, infinite)["test_loss"] is None
