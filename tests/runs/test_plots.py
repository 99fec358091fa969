import sys
from array import array

import matplotlib
import pytest
import torch

from torchpure import model, random
from torchpure.data import plain_numbers
from torchpure.runs._plots import draw_fit, draw_loss
from torchpure.runs.fits._config import configure
from torchpure.runs.fits._network import build
from torchpure.runs.fits._points import Data, Sample, load

KEY = random.key(0)


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


@pytest.mark.parametrize(
    "losses",
    [array("d"), array("d", [0.0, 0.0]), array("d", range(9000)), array("d", [1e300, 1e-30])],
)
@pytest.mark.parametrize("test_loss", [0.5, 0.0, float("nan")])
def test_loss_plot(tmp_path, losses, test_loss):
    draw_loss(tmp_path / "loss.png", losses, test_loss, "title", "loss")
    assert is_png(tmp_path / "loss.png")


@pytest.mark.parametrize(
    "options",
    [
        {"target": "sin(x)"},
        {"target": "3"},
        {"target": "x*y", "domain": "x=0:1,y=0:1"},
        {"target": "3", "domain": "x=0:1,y=0:1"},
        {"target": "log(x - 0.001)", "domain": "0:1e6"},
    ],
)
def test_fit_plot(tmp_path, options):
    config = configure(options)
    data = load(config, KEY)
    network = build(config, data.train, data.preprocessing)
    network.core.load_state_dict(model.functional(network.core).init(KEY)[0])
    draw_fit(tmp_path / "fit.png", network, data, "$broken \\math 漢字", "$also_ " + "long " * 50)
    assert is_png(tmp_path / "fit.png")


def test_a_plot_of_a_single_input_value(tmp_path):
    sample = Sample(torch.ones(2, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    data = Data(("x",), sample, sample, None, [(1.0, 1.0)], None, plain_numbers(["x"], ["y"]))
    network = build(configure({"target": "x"}), sample, data.preprocessing)
    network.core.load_state_dict(model.functional(network.core).init(KEY)[0])
    draw_fit(tmp_path / "fit.png", network, data, "y", "title")
    assert is_png(tmp_path / "fit.png")


def test_matplotlibs_global_state_does_not_change(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would raise
    names = [name for name in matplotlib.rcParams if name != "backend"]  # reading this one imports pyplot
    before = [matplotlib.rcParams[name] for name in names]
    draw_loss(tmp_path / "loss.png", [1.0, 0.5], 0.5, "title", "loss")
    assert [matplotlib.rcParams[name] for name in names] == before
