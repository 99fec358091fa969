"""Optimizers whose oracles round or lack a case, against their recurrences written for single numbers."""

import math

import jax
import numpy as np
import optax
import pytest
import torch

from torchpure import optim, random, vmap

GRADS = [math.sin(1.7 * t) + 0.3 for t in range(1, 41)]


def _run(optimizer, start=1.5, **extra):
    params = torch.tensor([start], dtype=torch.float64)
    state, points = optimizer.init(params), []
    for gradient in GRADS:
        params, state = optimizer.step(torch.tensor([gradient], dtype=torch.float64), state, params, **extra)
        points.append(params.item())
    return points, state


@pytest.mark.parametrize("t0", [1e6, 5.0])
def test_asgd(t0):
    points, state = _run(optim.asgd(0.1, lambd=0.01, alpha=0.6, t0=t0, weight_decay=0.02))
    p, average, expected = 1.5, 1.5, []
    for t, g in enumerate(GRADS, start=1):
        eta = 0.1 / (1 + 0.01 * 0.1 * (t - 1)) ** 0.6
        p = p * (1 - 0.01 * eta) - eta * (g + 0.02 * p)
        average += (p - average) / max(1, t - 1 - t0)
        expected.append(p)
    np.testing.assert_allclose(points, expected, rtol=1e-13)
    np.testing.assert_allclose(state.average.item(), average, rtol=1e-13)
    leaf = torch.nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    theirs = torch.optim.ASGD([leaf], 0.1, lambd=0.01, alpha=0.6, t0=t0, weight_decay=0.02)
    for g in GRADS:
        leaf.grad = torch.tensor([g], dtype=torch.float64)
        theirs.step()
    np.testing.assert_allclose(leaf.item(), p, rtol=1e-6)  # torch keeps its η in float32


def test_madgrad():
    points, _ = _run(optim.madgrad(0.05, momentum=0.8, weight_decay=0.01))
    p, s, v, expected = 1.5, 0.0, 0.0, []
    for t, g in enumerate(GRADS, start=1):
        weight, g = (0.05 + 1e-6) * math.sqrt(t), g + 0.01 * p
        s, v = s + weight * g, v + weight * g * g
        p = 0.8 * p + 0.2 * (1.5 - s / (v ** (1 / 3) + 1e-6))
        expected.append(p)
    np.testing.assert_allclose(points, expected, rtol=1e-13)


def test_prodigy():
    points, _ = _run(optim.prodigy(0.7, estim_lr0=1e-2, weight_decay=0.01))
    p, m, v, s, r, d, expected = 1.5, 0.0, 0.0, 0.0, 0.0, 1e-2, []
    b1, b2, b3 = 0.9, 0.999, math.sqrt(0.999)
    for t, g in enumerate(GRADS, start=1):
        pace = d * 0.7 * math.sqrt(1 - b2**t) / (1 - b1**t)
        m, v = b1 * m + (1 - b1) * d * g, b2 * v + (1 - b2) * (d * g) ** 2
        r, s = b3 * r + d / 1e-2 * pace * g * (1.5 - p), b3 * s + pace * d * g / 1e-2
        p = p - 0.01 * pace * p - pace * m / (math.sqrt(v) + d * 1e-8)
        d = max(d, r / abs(s))
        expected.append(p)
    np.testing.assert_allclose(points, expected, rtol=1e-12)


def test_polyak():
    points, _ = _run(optim.polyak_sgd(0.3, f_min=0.1), value=torch.tensor(0.5, dtype=torch.float64))
    p, expected = 1.5, []
    for g in GRADS:
        p -= g * min((0.5 - 0.1) / g**2, 0.3)
        expected.append(p)
    np.testing.assert_allclose(points, expected, rtol=1e-13)


def test_sm3_is_optaxs():
    """optax has no SM3 for leaves of shape (), which the table's problem has."""
    start = np.array([[0.5, -1.0], [2.0, 0.3]])
    ours, params = optim.sm3(0.1), torch.tensor(start)
    state = ours.init(params)
    with jax.enable_x64():
        theirs, there = optax.sm3(0.1), jax.numpy.asarray(start)
        memory = theirs.init(there)
        for t in range(200):
            gradient = np.sin(start * (t + 1)) + start
            params, state = ours.step(torch.tensor(gradient), state, params)
            updates, memory = theirs.update(jax.numpy.asarray(gradient), memory, there)
            there = optax.apply_updates(there, updates)
        np.testing.assert_allclose(params.numpy(), np.asarray(there), rtol=1e-10)


def test_sophia_is_optaxs_with_the_same_diagonal():
    def diagonal(key, objective, leaves):
        return [leaf.square() for leaf in leaves]

    ours = optim.sophia(
        0.05, key=random.key(0), gamma=0.5, weight_decay=0.01, update_interval=3, hessian_diagonal_fn=diagonal
    )
    points, _ = _run(ours, value_fn=None)
    with jax.enable_x64(True):
        squares = optax.stateless(lambda updates, params: jax.tree.map(lambda p: p**2, params))
        theirs = optax.contrib.sophia(
            0.05, gamma=0.5, weight_decay=0.01, update_interval=3, hessian_diagonal_fn=squares
        )
        p = jax.numpy.array([1.5])
        state, expected = theirs.init(p), []
        for g in GRADS:
            updates, state = theirs.update(jax.numpy.array([g]), state, p)
            p = optax.apply_updates(p, updates)
            expected.append(float(p[0]))
    np.testing.assert_allclose(points, expected, rtol=1e-12)


def test_hutchinsons_estimate_is_exact_for_a_diagonal_and_unbiased_otherwise():
    matrix = torch.tensor([[2.0, 0.7], [0.7, 3.0]], dtype=torch.float64)
    leaves = [torch.tensor([0.3, -1.0], dtype=torch.float64)]
    exact = optim.hutchinson(random.key(0), lambda x: (x[0].square() * matrix.diagonal()).sum() / 2, leaves)[0]
    torch.testing.assert_close(exact, matrix.diagonal())
    keys = random.split(random.key(1), 400)
    estimates = vmap(lambda key: optim.hutchinson(key, lambda x: x[0] @ matrix @ x[0] / 2, leaves)[0])(keys)
    torch.testing.assert_close(estimates.mean(0), matrix.diagonal(), rtol=0.05, atol=0)


def test_sam_at_the_end_of_each_period_is_the_step_from_where_it_began():
    rho, learning_rate = 0.1, 0.05
    ascent = optim.chain(optim.normalize_by_update_norm(), optim.sgd(rho))
    params = torch.tensor([1.0, -2.0], dtype=torch.float64)
    opt, p = optim.sam(optim.sgd(learning_rate), ascent), params.clone()
    state, wanted = opt.init(p), params.clone()
    for _ in range(5):
        for _ in range(2):
            p, state = opt.step(p**3, state, p)
        top = wanted + rho * wanted**3 / (wanted**3).norm()
        wanted = wanted - learning_rate * top**3
        torch.testing.assert_close(p, wanted, rtol=1e-6, atol=0)  # the norm has an eps


def test_schedule_free_evaluates_at_the_weighted_mean_of_the_base_points():
    opt, params = optim.schedule_free_sgd(0.1, b1=0.8), torch.tensor([1.5], dtype=torch.float64)
    state, points = opt.init(params), []
    for gradient in GRADS:
        params, state = opt.step(torch.tensor([gradient], dtype=torch.float64), state, params)
        points.append(state.base)
    torch.testing.assert_close(optim.schedule_free_eval_params(state, params), torch.stack(points).mean(0))
    with pytest.raises(TypeError, match="wanted a ScheduleFreeState, got tuple"):
        optim.schedule_free_eval_params((state,), params)


def test_nadam_in_torchs_form():
    points, _ = _run(optim.nadam(0.05, b1=0.8, b2=0.95, momentum_decay=0.1))
    p, m, v, product, expected = 1.5, 0.0, 0.0, 1.0, []
    for t, g in enumerate(GRADS, start=1):
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        now, ahead = (0.8 * (1 - 0.5 * 0.96 ** (s * 0.1)) for s in (t, t + 1))
        product *= now
        direction = (1 - now) * g / (1 - product) + ahead * m / (1 - product * ahead)
        p -= 0.05 * direction / (math.sqrt(v / (1 - 0.95**t)) + 1e-8)
        expected.append(p)
    np.testing.assert_allclose(points, expected, rtol=1e-12)
    leaf = torch.nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    theirs = torch.optim.NAdam([leaf], 0.05, betas=(0.8, 0.95), momentum_decay=0.1)
    for g in GRADS:
        leaf.grad = torch.tensor([g], dtype=torch.float64)
        theirs.step()
    np.testing.assert_allclose(leaf.item(), p, rtol=1e-6)  # torch keeps its product in float32


def test_torchs_rmsprop_sums_before_the_rate():
    learning_rates = [0.05 * 0.9**t for t in range(len(GRADS))]
    points, _ = _run(optim.rmsprop(lambda step: 0.05 * 0.9**step, decay=0.9, momentum=0.8, eps_in_sqrt=False))
    leaf = torch.nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    theirs = torch.optim.RMSprop([leaf], alpha=0.9, momentum=0.8)
    for g, learning_rate in zip(GRADS, learning_rates, strict=True):
        theirs.param_groups[0]["lr"] = learning_rate
        leaf.grad = torch.tensor([g], dtype=torch.float64)
        theirs.step()
    np.testing.assert_allclose(points[-1], leaf.item(), rtol=1e-12)
