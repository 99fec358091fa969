"""What `fit` takes as data and as a state, and what it refuses by name."""

import numpy as np
import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.errors import StructureError

X = torch.linspace(-1, 1, 10)[:, None]
Y = X**2
NET = tp.functional(nn.Linear(1, 1))
OPTIONS = {"optimizer": tp.optim.adam(0.05), "steps": 6}
WANTED = tp.fit(NET, (X, Y), **OPTIONS)


def by_dict(params, batch):
    return (NET(params, batch["x"]) - batch["y"]).square().mean()


DATA = {
    "arrays": (X.numpy(), Y.numpy()),
    "arrays of float64": (X.double().numpy(), Y.double().numpy()),
    "an array and a tensor": (X.numpy(), Y),
    "dict": {"x": X, "y": Y},
    "dict of arrays": {"x": X.numpy(), "y": Y.numpy()},
    "batches of arrays": [(X.numpy(), Y.numpy())],
    "batches that are dicts": [{"x": X, "y": Y}],
    "batches that are dicts of arrays": [{"x": X.numpy(), "y": Y.numpy()}] * 2,
    "a data loader": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=10),
}


@pytest.mark.parametrize("name", DATA)
def test_every_form_of_data_gives_the_same_fit(name):
    found = tp.fit(NET, DATA[name], **OPTIONS)
    assert found.history.dtype == torch.float32
    torch.testing.assert_close(found.history, WANTED.history)


@pytest.mark.parametrize("name", [name for name in DATA if "dict" in name])
def test_a_loss_function_gets_a_dict_as_a_dict(name):
    found = tp.fit(by_dict, DATA[name], params=NET.params, **OPTIONS)
    torch.testing.assert_close(found.history, WANTED.history)


def test_minibatches_of_a_dict_are_those_of_a_tuple():
    options = {"optimizer": tp.optim.sgd(0.1), "steps": 7, "batch_size": 4, "key": tp.random.key(0)}
    wanted = tp.fit(lambda p, x, y: by_dict(p, {"x": x, "y": y}), (X, Y), params=NET.params, **options)
    found = tp.fit(by_dict, {"x": X.numpy(), "y": Y}, params=NET.params, **options)
    torch.testing.assert_close(found.history, wanted.history)


def test_integers_of_numpy_stay_integers():
    labels = (X[:, 0] > 0).long().numpy()
    net = tp.functional(nn.Linear(1, 2))
    found = tp.fit(net, (X.numpy(), labels), loss=nn.functional.cross_entropy, **OPTIONS)
    wanted = tp.fit(net, (X, torch.tensor(labels)), loss=nn.functional.cross_entropy, **OPTIONS)
    torch.testing.assert_close(found.history, wanted.history)


def test_law_a_fit_continues_with_its_params_and_opt_state():
    half = tp.fit(NET, (X, Y), optimizer=tp.optim.adam(0.05), steps=3)
    rest = tp.fit(NET, (X, Y), optimizer=tp.optim.adam(0.05), steps=3, params=half.params, opt_state=half.opt_state)
    assert torch.equal(torch.cat([half.history, rest.history]), WANTED.history) and rest.opt_state.step == 6


WRONG = {
    "one tensor": (
        {"data": X},
        r"a module needs data \(inputs …, target\), got only a float32 tensor of shape \(10, 1\)",
    ),
    "one array": ({"data": X.numpy()}, "a module needs data .*, got only"),
    "tuple of one": ({"data": (X,)}, "a module needs data .*, got only a float32 tensor"),
    "list of tensors": ({"data": [X, Y]}, "a module needs data .*: pass a tuple"),
    "dict of one": ({"data": {"x": X}}, "a module needs data .*, got only"),
    "dict of others": ({"data": {"x": X, "name": "z"}}, "got a dict with str 'z' at 'name'"),
    "module as data": ({"data": nn.Linear(1, 1)}, "got the module Linear"),
    "dataset": ({"data": torch.utils.data.TensorDataset(X, Y)}, "the dataset TensorDataset: pass a .*DataLoader"),
    "text in an array": ({"data": (np.array(["a"]), np.array(["b"]))}, "an array of dtype <U1: wanted numbers"),
    "factory": ({"optimizer": tp.optim.adam}, "got the function adam: call it first"),
    "torch.optim": (
        {"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)},
        r"got torch.optim.SGD: use .* tp.optim.lift\(torch.optim.SGD",
    ),
    "module as optimizer": ({"optimizer": nn.Linear(1, 1)}, "wanted an optimizer of tp.optim, got the module Linear"),
    "class": ({"model": nn.Linear}, r"got the class Linear: make a module, as in Linear\(…\)"),
    "no model": ({"model": X}, "wanted a module, a Functional or a loss function, got a float32 tensor"),
    "module as params": (
        {"params": nn.Linear(1, 1)},
        r"params must be .*, got Linear: pass tp.functional\(module\).params",
    ),
    "generator as params": ({"params": nn.Linear(1, 1).parameters()}, "params must be .*, got generator"),
    "class as loss": ({"loss": nn.MSELoss}, r"loss must be a function loss\(output, target\), got <class"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_fit_cannot_take_is_named(name):
    change, message = WRONG[name]
    options = {"model": NET, "data": (X, Y), "optimizer": tp.optim.sgd(0.1), "steps": 2, **change}
    with pytest.raises(TypeError, match=f"fit: .*{message}"):
        tp.fit(options.pop("model"), options.pop("data"), **options)


@pytest.mark.parametrize("steps", [3, 300])
def test_a_state_of_another_optimizer_is_refused(steps):
    state = tp.optim.sgd(0.1).init(NET.params)
    with pytest.raises(StructureError, match="adam: the state does not fit: at `.`: wanted AdamState, got SgdState"):
        tp.fit(NET, (X, Y), optimizer=tp.optim.adam(0.1), steps=steps, opt_state=state)


def test_loop_names_what_is_no_optimizer():
    with pytest.raises(TypeError, match="loop: wanted an optimizer of tp.optim, got the function adam"):
        next(tp.train.loop(by_dict, NET.params, [(X, Y)], tp.optim.adam))


SEQUENCES = (torch.ones(4, 5, 3), torch.ones(4, 5, 1))
MISTAKES = {
    "integers": (nn.Linear(3, 1), (torch.ones(4, 3, dtype=torch.int64), torch.ones(4, 1)), "dtype float32, .* int64"),
    "float64": (nn.Linear(3, 1), (torch.ones(4, 3).double(), torch.ones(4, 1)), r"float64 .*as in x.to\(torch.float32"),
    "state": (nn.BatchNorm1d(3), (torch.ones(4, 3, dtype=torch.int64), torch.ones(4, 3)), "dtype float32, .* int64"),
    "convolution": (nn.Conv1d(3, 1, 1), (torch.ones(4, 3, 2, dtype=torch.int64), torch.ones(4, 1, 2)), "int64"),
    "a tuple": (nn.LSTM(3, 1, batch_first=True), SEQUENCES, "returns tuple of 2, .* loss=lambda output, target"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_model_that_does_not_fit_the_data(name):
    model, data, message = MISTAKES[name]
    with pytest.raises(TypeError, match=f"^fit: the model .*{message}"):
        tp.fit(model, data, optimizer=tp.optim.sgd(0.1), steps=1)


def test_an_output_is_chosen_by_the_loss():
    loss = lambda output, target: nn.functional.mse_loss(output[0], target)  # noqa: E731
    result = tp.fit(nn.LSTM(3, 1, batch_first=True), SEQUENCES, loss=loss, optimizer=tp.optim.sgd(0.1), steps=2)
    assert result.history[1] < result.history[0]


def test_integer_targets_count_as_numbers():
    targets, results = torch.tensor([[1], [2]]), []
    for target in (targets, targets.float()):
        start = {"weight": torch.ones(1, 1), "bias": torch.zeros(1)}
        fitted = tp.fit(nn.Linear(1, 1), (torch.ones(2, 1), target), params=start, optimizer=tp.optim.sgd(0.1), steps=3)
        results.append(fitted.params)
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("key", [3, torch.tensor(3), None])
def test_a_key_is_checked(key):
    calls = {
        "fit": lambda: tp.fit(nn.Linear(3, 1), (torch.ones(4, 3), torch.ones(4, 1)), optimizer=tp.optim.sgd(0.1),
                              steps=1, key=3 if key is None else key),
        "sweep": lambda: tp.train.sweep(lambda key, a: a, {"a": [1.0]}, key=3 if key is None else key),
        "add_noise": lambda: tp.optim.noisy_sgd(0.1, key=key),
        "scale_by_kron": lambda: tp.optim.kron(0.1, key=key),
        "gamma": lambda: tp.random.gamma(key, 1.0),
        "poisson": lambda: tp.random.poisson(key, 1.0),
        "geometric": lambda: tp.random.geometric(key, 0.5),
    }  # fmt: skip
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"^{name}: wanted a key, as random.key"):
            call()


LAYOUTS = {
    "big-endian": lambda array: array.astype(">f4"),
    "little-endian": lambda array: array.astype("<f4"),
    "negative strides": lambda array: array[::-1].copy()[::-1],
    "columns of a larger array": lambda array: np.repeat(array, 3, axis=1)[:, 1:2],
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
    "a subclass": lambda array: array.view(np.recarray),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_array_is_the_same_data_in_every_layout(name):
    def losses(x):
        return tp.fit(NET, (x, Y.numpy()), optimizer=tp.optim.sgd(0.1), steps=2, jit=False).history

    assert torch.equal(losses(LAYOUTS[name](X.numpy())), losses(X.numpy()))


@pytest.mark.parametrize("array", [np.ma.masked_array([1.0, 2.0], [0, 1]), np.ones(2, np.longdouble), np.array([None])])
def test_an_array_that_torch_cannot_hold_is_refused(array):
    with pytest.raises(TypeError, match="fit: data has an? (masked array: fill|array of dtype .*: wanted numbers)"):
        tp.fit(lambda p, x: p, array, params=torch.tensor(0.0), optimizer=tp.optim.sgd(0.1), steps=2)


@pytest.mark.parametrize("name", ["steps", "every", "batch_size", "accumulate"])
@pytest.mark.parametrize("value", [True, 2.0, "2", -1, torch.tensor(2)])
def test_counts_are_integers(name, value):
    with pytest.raises(ValueError, match=f"fit: {name} must be an integer, at least [01], got"):
        tp.fit(NET, (X, Y), optimizer=tp.optim.sgd(0.1), key=tp.random.key(0), **{"steps": 2, name: value})
    counts = {"steps": 2, name: np.int64(2)}
    assert len(tp.fit(NET, (X, Y), optimizer=tp.optim.sgd(0.1), key=tp.random.key(0), **counts).history) == 2
