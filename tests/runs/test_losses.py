import math

import pytest
import torch
from torch import nn

from torchpure.runs.fits._losses import measure, measure_loss, standard_loss, unit
from torchpure.runs.fits._network import Network, Units
from torchpure.runs.fits._points import Sample


def network(width, scale=1.0):
    """Return a network whose core is the identity of its inputs."""
    core = nn.Sequential(nn.Linear(width, width, bias=False, dtype=torch.float64))
    with torch.no_grad():
        core[0].weight.copy_(torch.eye(width))
    shape = (width,) if width > 1 else ()
    zero, one = torch.zeros(width, dtype=torch.float64), torch.ones(width, dtype=torch.float64)
    target = Units(torch.zeros(shape, dtype=torch.float64), torch.full(shape, scale, dtype=torch.float64))
    return Network(core, Units(zero, one), target)


X = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
Y = torch.tensor([20.0, 20.0, 50.0], dtype=torch.float64)


@pytest.mark.parametrize(("name", "expected"), [("mse", 200 / 3), ("mae", 20 / 3), ("huber", 100 / 3)])
def test_losses_are_in_the_units_of_the_target(name, expected):
    """Predictions are 10, 20 and 40; Huber's loss is a half square up to one standard deviation."""
    net = network(1, 10.0)
    assert measure_loss(net, Sample(X, Y), name) == pytest.approx(expected)
    standard = standard_loss(name)(net.core(net.encode(X)).detach(), net.encode_target(Y))
    assert float(standard) * unit(name, net) == pytest.approx(expected)


def test_r2_and_relative_error():
    measured = measure(network(1, 10.0), Sample(X, Y), "mse")
    assert measured["r2"] == pytest.approx(1 - 200 / 600)
    assert measured["relative_error"] == pytest.approx(math.sqrt(200 / 3300))


def test_a_constant_target_has_no_r2():
    measured = measure(network(1), Sample(X, torch.zeros(3, dtype=torch.float64)), "mse")
    assert (measured["r2"], measured["relative_error"]) == (None, None)


def test_several_targets_are_measured_in_standard_deviations():
    x = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64)
    y = torch.tensor([[10.0, 20.0], [30.0, 70.0]], dtype=torch.float64)
    measured = measure(network(2, 10.0), Sample(x, y), "mse")
    assert measured["loss"] == pytest.approx(4 / 4)
    assert measured["r2"] == pytest.approx((1 + 1 - 400 / 1250) / 2)


def test_classes():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([0, 1, 0, 2])
    measured = measure(network(3), Sample(logits, y), "cross-entropy")
    assert measured["accuracy"] == 0.75
    assert measured["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert measured["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, y)))
