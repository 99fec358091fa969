"""Line searches and L-BFGS against optax, SciPy and torch."""

import itertools

import numpy as np
import pytest
import torch
from daily import daily

from torchpure import optim, value_and_grad, vmap

START = (-1.2, 1.0, 0.3, 0.8)


def _rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def _quartic(x):
    return (x[0] - 2) ** 4 + (x[0] - 2 * x[1]) ** 2 + (x[2:] ** 2).sum()


def _ours(optimizer, f, steps, start=START):
    x = torch.tensor(start, dtype=torch.float64)
    state, points = optimizer.init(x), []
    for _ in range(steps):
        value, grad = value_and_grad(f)(x)
        x, state = optimizer.step(grad, state, x, value=value, grad=grad, value_fn=f)
        points.append(x.numpy())
    return np.stack(points)


def _optax(make, f, steps):
    import jax
    import optax

    with jax.enable_x64(True):
        transformation = make(optax)
        x = jax.numpy.array(START)
        state, points = transformation.init(x), []

        @jax.jit
        def step(x, state):
            value, grad = jax.value_and_grad(f)(x)
            updates, state = transformation.update(grad, state, x, value=value, grad=grad, value_fn=f)
            return optax.apply_updates(x, updates), state

        for _ in range(steps):
            x, state = step(x, state)
            points.append(np.asarray(x))
    return np.stack(points)


OURS_AND_OPTAX = {
    "zoom": lambda o: o.chain(o.sgd(1.0), o.scale_by_zoom_linesearch(15)),
    "zoom, bounded": lambda o: o.chain(o.sgd(1.0), o.scale_by_zoom_linesearch(15, max_learning_rate=2e-3)),
    "zoom, few": lambda o: o.chain(o.sgd(1.0), o.scale_by_zoom_linesearch(3, initial_guess_strategy="one")),
    "zoom, exact": lambda o: o.chain(o.sgd(1.0), o.scale_by_zoom_linesearch(30, curv_rtol=0.01, approx_dec_rtol=None)),
    "backtracking": lambda o: o.chain(o.sgd(1.0), o.scale_by_backtracking_linesearch(30)),
    "backtracking, few": lambda o: o.chain(o.adam(1.0), o.scale_by_backtracking_linesearch(3, rtol=1e-3, atol=1e-3)),
    "lbfgs": lambda o: o.lbfgs(),
    "lbfgs, short": lambda o: o.lbfgs(memory_size=2),
    "lbfgs, backtracking": lambda o: o.lbfgs(linesearch=o.scale_by_backtracking_linesearch(20)),
}


# JAX compiles each search
@pytest.mark.parametrize(("f", "name"), daily(itertools.product([_rosenbrock, _quartic], OURS_AND_OPTAX), 2))
def test_trajectory_equals_optax(name, f):
    make = OURS_AND_OPTAX[name]
    ours, theirs = _ours(make(optim), f, 15), _optax(make, f, 15)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_lbfgs_finds_the_minimum_of_rosenbrock():
    points = _ours(optim.lbfgs(), _rosenbrock, 40, start=(-1.2, 1.0))
    np.testing.assert_allclose(points[-1], 1.0, rtol=1e-6)


def test_step_size_is_zero_if_no_value_is_finite():
    def f(x):
        return torch.where(x > 1, float("nan"), x).sum()

    opt = optim.chain(optim.scale(1.0), optim.scale_by_backtracking_linesearch(5, max_learning_rate=100.0))
    x = torch.tensor([1.0], dtype=torch.float64)
    moved, state = opt.step(torch.ones_like(x), opt.init(x), x, value=f(x), grad=torch.ones_like(x), value_fn=f)
    assert moved.item() == 1.0 and state[1].learning_rate.item() == 0.0 and state[1].value.item() == 1.0


@pytest.mark.parametrize("make", [optim.lbfgs, lambda: OURS_AND_OPTAX["zoom"](optim)])
def test_value_and_gradient_come_from_the_state(make):
    opt, x, calls = make(), torch.tensor(START, dtype=torch.float64), []

    def counted(x):
        calls.append(1)
        return _rosenbrock(x)

    from_state, state = optim.value_and_grad_from_state(counted), opt.init(x)
    for i in range(4):
        before = len(calls)
        value, grad = from_state(x, state=state)
        assert len(calls) - before == (i == 0)
        wanted = value_and_grad(_rosenbrock)(x)
        torch.testing.assert_close((value, grad), wanted)
        x, state = opt.step(grad, state, x, value=value, grad=grad, value_fn=counted)


def test_error_for_a_state_without_a_value():
    opt, x = optim.adam(0.1), torch.ones(2)
    with pytest.raises(ValueError, match="the state has no value and gradient: wanted that of lbfgs"):
        optim.value_and_grad_from_state(_rosenbrock)(x, state=opt.init(x))


def test_searches_in_a_batch_end_independently():
    starts = torch.tensor([START, (0.5, 0.5, 0.5, 0.5), (2.0, -1.0, 0.0, 3.0)], dtype=torch.float64)
    opt = optim.lbfgs(linesearch=optim.scale_by_zoom_linesearch(10, initial_guess_strategy="one"))

    def run(x):
        state = opt.init(x)
        for _ in range(4):
            value, grad = value_and_grad(_rosenbrock)(x)
            x, state = opt.step(grad, state, x, value=value, grad=grad, value_fn=_rosenbrock)
        return x

    torch.testing.assert_close(vmap(run)(starts), torch.stack([run(x) for x in starts]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("f", [_rosenbrock, _quartic])
@pytest.mark.parametrize("start", [START, (0.1, 0.2, 0.3, 0.1), (-1.2, 1.0, 3.0, -4.0)])
def test_lbfgs_scipy_form_equals_scipy(f, start):
    import scipy.optimize

    def value_and_gradient(x):
        value, grad = value_and_grad(f)(torch.tensor(x))
        return value.item(), grad.numpy()

    points = []
    options = {"maxcor": 10, "ftol": 0.0, "gtol": 1e-8, "maxiter": 25}
    scipy.optimize.minimize(
        value_and_gradient, start, jac=True, method="L-BFGS-B", options=options, callback=lambda x: points.append(x)
    )
    assert len(points) > 8
    np.testing.assert_allclose(_ours(optim.lbfgs(form="scipy"), f, len(points), start), points, rtol=1e-6, atol=1e-7)


def _network():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double()
    x = torch.linspace(-1, 1, 40, dtype=torch.float64).unsqueeze(1)
    return net, x, 2 * torch.sin(3 * x)


def test_lbfgs_torch_form_equals_torch_on_a_network():
    from torchpure import functional

    net, x, y = _network()
    fn = functional(net)
    params = fn.params

    def loss(params):
        return (fn(params, x) - y).square().mean()

    opt = optim.lbfgs(form="torch", memory_size=10)
    state, ours = opt.init(params), []
    for _ in range(60):
        value, grads = value_and_grad(loss)(params)
        params, state = opt.step(grads, state, params, value=value, grad=grads, value_fn=loss)
        ours.append(loss(params).item())
    theirs = torch.optim.LBFGS(
        net.parameters(), max_iter=1, max_eval=1000, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure():
        theirs.zero_grad()
        value = (net(x) - y).square().mean()
        value.backward()
        return value

    for step in range(60):
        theirs.step(closure)
        # rounding errors grow from step to step
        np.testing.assert_allclose(ours[step], closure().item(), rtol=1e-9 if step < 20 else 1e-4)
    assert ours[-1] < 0.01


@pytest.mark.parametrize("form", ["optax", "torch", "scipy"])
def test_all_three_forms_find_the_minimum(form):
    points = _ours(optim.lbfgs(form=form), _rosenbrock, 45, start=(-1.2, 1.0))
    np.testing.assert_allclose(points[-1], 1.0, rtol=1e-6)
