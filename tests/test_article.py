"""Each step of the article "Introduction to functional PyTorch" (Dagrada 2023), in torchpure, with the same shapes."""

import math

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.testing import assert_trees_close


class SimpleNN(nn.Module):
    """The article's network: linear layers, each hidden one followed by a tanh."""

    def __init__(self, num_layers=1, num_neurons=5):
        super().__init__()
        hidden = [layer for _ in range(num_layers) for layer in (nn.Linear(num_neurons, num_neurons), nn.Tanh())]
        self.network = nn.Sequential(nn.Linear(1, num_neurons), *hidden, nn.Linear(num_neurons, 1))

    def forward(self, x):
        return self.network(x.reshape(-1, 1)).squeeze()


def target(x):
    return 2.0 * torch.sin(x + 2.0 * torch.pi)


def get_data(key, n_points):
    x = tp.random.uniform(key, (n_points,), high=2.0 * math.pi)
    return x, target(x)


@pytest.fixture
def model():
    net = tp.functional(SimpleNN())
    params, state = net.init(tp.random.key(2))
    return net.to_module(params, state)


@pytest.fixture
def x():
    return tp.random.uniform(tp.random.key(1), (10,))


def test_forward_is_a_pure_function_of_a_dict(model, x):
    net = tp.functional(model)
    assert torch.equal(net(dict(model.named_parameters()), x), model(x))
    assert net(net.params, x).shape == (10,)


def test_forward_is_a_pure_function_of_a_tuple(model, x):
    model_func = tp.make_functional_fwd(model)
    params = tuple(model.parameters())
    assert torch.equal(model_func(x, params), model(x))


def test_forward_is_pure(model, x):
    net = tp.functional(model)
    before = [leaf.clone() for leaf in (x, *net.params.values(), *model.parameters())]
    generator = torch.get_rng_state()
    first, second = net(net.params, x), net(net.params, x)
    assert torch.equal(first, second)
    assert all(map(torch.equal, before, (x, *net.params.values(), *model.parameters())))
    assert torch.equal(generator, torch.get_rng_state())


def _closed_form(params, x):
    """Return value, first and second derivative in x of the article's network with one hidden layer.

    With z = W1 (W0 x + b0) + b1 and s = W1 W0: f = w2 · tanh z + b2, f′ = w2 · (1 − tanh² z) s and
    f″ = −2 w2 · tanh z (1 − tanh² z) s².
    """
    w0, b0, w1, b1, w2, b2 = params
    z = w1 @ (w0[:, 0] * x + b0) + b1
    slope, t = w1 @ w0[:, 0], torch.tanh(z)
    value = w2[0] @ t + b2[0]
    return value, w2[0] @ ((1 - t**2) * slope), -2 * w2[0] @ (t * (1 - t**2) * slope**2)


def test_gradient_with_respect_to_the_input_of_one_point(model, x):
    model_func = tp.make_functional_fwd(model.double())
    params, point = tuple(p.detach() for p in model.parameters()), x[0].double()
    grad_x = tp.grad(model_func, argnums=0)(point, params)
    assert grad_x.shape == ()
    torch.testing.assert_close(grad_x, _closed_form(params, point)[1], rtol=1e-12, atol=1e-14)
    assert torch.equal(tp.grad(model_func)(point, params), grad_x)


def test_gradient_with_respect_to_the_parameters(model, x):
    model_func = tp.make_functional_fwd(model.double())
    params, point = tuple(p.detach() for p in model.parameters()), x[0].double()
    grad_params = tp.grad(model_func, argnums=1)(point, params)
    assert isinstance(grad_params, tuple)
    assert [g.shape for g in grad_params] == [p.shape for p in params]
    w0, b0, w1, b1, w2, _ = params
    h = w0[:, 0] * point + b0
    t = torch.tanh(w1 @ h + b1)
    d = w2[0] * (1 - t**2)
    back = w1.T @ d
    expected = (back[:, None] * point, back, torch.outer(d, h), d, t[None], torch.ones(1, dtype=torch.float64))
    assert_trees_close(grad_params, expected, rtol=1e-12, atol=1e-14)


def test_gradient_of_the_articles_own_parameters_stays_attached_to_them(model, x):
    """The article passes `tuple(model.parameters())`, which require grad, so second derivatives can reach them."""
    model_func = tp.make_functional_fwd(model)
    params = tuple(model.parameters())
    grad_x = tp.grad(model_func)(x[0], params)
    assert grad_x.requires_grad
    assert torch.autograd.grad(grad_x, params[0])[0].abs().sum() > 0


def test_laplacian_of_a_batch(model, x):
    model_func = tp.make_functional_fwd(model.double())
    params, points = tuple(p.detach() for p in model.parameters()), x.double()
    laplacian = tp.vmap(tp.grad(tp.grad(model_func)), in_dims=(0, None))(points, params)
    expected = torch.stack([_closed_form(params, point)[2] for point in points])
    assert laplacian.shape == (10,)
    torch.testing.assert_close(laplacian, expected, rtol=1e-11, atol=1e-14)


def test_optimisation_loop_with_tuple_parameters(model):
    k_train, k_test = tp.random.split(tp.random.key(0))
    x_train, y_train = get_data(k_train, 40)
    x_test, y_test = get_data(k_test, 10)
    model_func, loss_fn = tp.make_functional_fwd(model), nn.MSELoss()
    optimizer = tp.optim.adam(0.01)
    params = start = tuple(p.detach() for p in model.parameters())
    state = optimizer.init(params)
    gradient = tp.value_and_grad(lambda params: loss_fn(model_func(x_train, params), y_train))
    loss_evolution = []
    for _ in range(500):
        loss, grads = gradient(params)
        params, state = optimizer.step(grads, state, params)
        loss_evolution.append(float(loss))
    assert isinstance(params, tuple)
    assert all(map(torch.equal, start, model.parameters()))  # the module was not trained
    assert loss_evolution[0] > 1 > loss_evolution[-1]
    test_loss = loss_fn(model_func(x_test, params), y_test)
    assert test_loss < 0.5  # a quarter of the target's variance; five tanh units reach this in 500 steps
    assert torch.equal(test_loss, loss_fn(model_func(x_test, params), y_test))


def test_optimisation_equals_torch_optim(model):
    x, y = get_data(tp.random.key(5), 40)
    model = model.double()
    result = tp.fit(model, (x.double(), y.double()), optimizer=tp.optim.adam(0.01), steps=200)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x.double()), y.double())
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    torch.testing.assert_close(result.history, torch.stack(losses), rtol=1e-11, atol=0)
    assert_trees_close(result.params, dict(model.named_parameters()), rtol=1e-10, atol=1e-12)
