import pytest
import torch

from torchpure import model, random
from torchpure.data import plain_numbers
from torchpure.errors import InputError
from torchpure.runs.fits import _network
from torchpure.runs.fits._config import configure
from torchpure.runs.fits._network import build, units
from torchpure.runs.fits._points import Sample

X = torch.tensor([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]], dtype=torch.float64)
RULES = plain_numbers(["a", "b"], ["y"])
TRAIN = Sample(X, torch.tensor([1e6, 2e6, 4e6], dtype=torch.float64))


def with_initial_values(network):
    network.core.load_state_dict(model.functional(network.core).init(random.key(0))[0])
    return network


def test_a_network_is_plain_layers_between_standardisations():
    network = with_initial_values(
        build(configure({"target": "x", "hidden": "4,3", "activation": "tanh"}), TRAIN, RULES)
    )
    names = [type(layer).__name__ for layer in network.core]
    assert names == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]
    with torch.no_grad():
        inner = network.core(network.encode(X))[:, 0].double()
        assert torch.equal(network(X), inner * network.target_scale + network.target_mean)
    assert network(X).shape == (3,)
    encoded = network.encode_target(TRAIN.y)
    assert encoded.dtype == torch.float32
    assert abs(encoded.mean()) < 1e-6
    assert abs(encoded.std(unbiased=False) - 1) < 1e-6


def test_the_article_has_a_linear_first_layer_and_no_standardisation():
    network = build(configure({"target": "x", "preset": "article"}), TRAIN, RULES)
    layers = [
        (layer.in_features, layer.out_features) if hasattr(layer, "in_features") else "tanh" for layer in network.core
    ]
    assert layers == [(2, 5), (5, 5), "tanh", (5, 1)]
    assert torch.equal(network.encode(X), X.float())


def test_building_does_not_use_the_global_generator():
    before = torch.get_rng_state()
    with_initial_values(build(configure({"target": "x"}), TRAIN, RULES))
    assert torch.equal(torch.get_rng_state(), before)


def test_constant_columns_get_the_scale_1():
    values = torch.tensor([[1.0, 0.1, 0.0], [2.0, 0.1 + 1e-17, 0.0], [3.0, 0.1, 0.0]], dtype=torch.float64)
    assert units(values).scale[1:].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "nowhere"}, "--device: 'nowhere' cannot be used here"),
        ({"device": "meta"}, "--device: 'meta' holds no numbers"),
        ({"hidden": ",".join(["4096"] * 16)}, "--hidden: the network would have .* parameters; at most"),
    ],
)
def test_refused(options, message):
    with pytest.raises(InputError, match=message):
        build(configure({"target": "x"} | options), TRAIN, RULES)


def test_too_many_points_for_the_widths(monkeypatch):
    monkeypatch.setattr(_network, "MAX_VALUES", 100)
    with pytest.raises(InputError, match="--hidden, --train-points: 3 points times 67 units are too many"):
        build(configure({"target": "x"}), TRAIN, RULES)
