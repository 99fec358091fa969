"""Optimizers of matrices against optax and torch, and against their recurrences in NumPy."""

import numpy as np
import pytest
import torch
from oracles import noise, run_optax, run_ours

from torchpure import optim, random

SHAPES = {"tall": (6, 3), "wide": (2, 5), "square": (4, 4)}


def _gradients(steps, shapes):
    generator = torch.Generator().manual_seed(1)
    draw = {name: torch.randn(steps, *shape, generator=generator).double() for name, shape in shapes.items()}
    return [{name: rows[i] for name, rows in draw.items()} for i in range(steps)]


def _run(optimizer, gradients):
    params = {name: torch.ones_like(leaf) for name, leaf in gradients[0].items()}
    state = optimizer.init(params)
    for grads in gradients:
        params, state = optimizer.step(grads, state, params)
    return params


def test_muon_equals_optax_over_100_steps():
    import optax

    ours, theirs = run_ours(optim.muon(0.05), noise(80)), run_optax(lambda: optax.contrib.muon(0.05), noise(80))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("adjust", [None, "match_rms_adamw"])
def test_muon_torch_form_equals_torch_over_200_steps(adjust):
    gradients = _gradients(200, SHAPES)
    params = {name: torch.nn.Parameter(torch.ones_like(leaf)) for name, leaf in gradients[0].items()}
    theirs = torch.optim.Muon(params.values(), lr=0.02, weight_decay=0.1, adjust_lr_fn=adjust)
    for grads in gradients:
        for name, leaf in params.items():
            leaf.grad = grads[name].clone()
        theirs.step()
    ours = _run(
        optim.muon(0.02, weight_decay=0.1, eps=1e-7, form="torch", consistent_rms=0.2 if adjust else None), gradients
    )
    for name, leaf in params.items():
        torch.testing.assert_close(ours[name], leaf.detach(), rtol=1e-12, atol=1e-12)


# the sign of singular vectors is arbitrary, so momentum from an earlier basis cannot be compared
@pytest.mark.parametrize(("gap", "decay"), [(1000, 0.9), (7, 0.0)])
def test_galore_equals_optax(gap, decay):
    import jax
    import optax

    with jax.enable_x64(True):
        gradients = _gradients(20, SHAPES)
        theirs = optax.contrib.galore(0.1, rank=2, update_proj_gap=gap, base_optimizer=optax.trace(decay))
        params = {name: jax.numpy.ones(leaf.shape) for name, leaf in gradients[0].items()}
        state, update = theirs.init(params), jax.jit(theirs.update)
        for grads in gradients:
            updates, state = update({name: leaf.numpy() for name, leaf in grads.items()}, state, params)
            params = optax.apply_updates(params, updates)
    ours = _run(optim.galore(0.1, rank=2, update_proj_gap=gap, base_optimizer=optim.trace(decay)), gradients)
    for name, leaf in params.items():
        np.testing.assert_allclose(ours[name].numpy(), np.asarray(leaf), rtol=1e-5, atol=1e-5)


def test_soap_equals_algorithm_3():
    gradients = _gradients(25, {"w": (4, 3)})
    ours = _run(optim.soap(0.1, weight_decay=0.01, precondition_frequency=5), gradients)["w"].numpy()
    w, m, v, left, right = np.ones((4, 3)), 0.0, 0.0, 0.0, 0.0
    for t, grads in enumerate(gradients):
        g = grads["w"].numpy()
        left, right = 0.95 * left + 0.05 * g @ g.T, 0.95 * right + 0.05 * g.T @ g
        if t == 0:
            q, r = np.linalg.eigh(left)[1], np.linalg.eigh(right)[1]
            w = w - 0.1 * 0.01 * w
            continue
        m, v = 0.95 * m + 0.05 * g, 0.95 * v + 0.05 * (q.T @ g @ r) ** 2
        n = (q.T @ m @ r) / (1 - 0.95**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
        w = w - 0.1 * (q @ n @ r.T + 0.01 * w)
        if t % 5 == 0:
            q, r = np.linalg.qr(left @ q)[0], np.linalg.qr(right @ r)[0]
    np.testing.assert_allclose(ours, w, rtol=1e-8)


def test_muon_mask_may_select_convolutions_and_vectors_use_adam():
    gradients = _gradients(3, {"conv": (4, 3, 2, 2), "bias": (4,)})
    moved = _run(optim.muon(0.1, matrices="conv"), gradients)
    flat = [{"conv": one["conv"].reshape(4, 12), "bias": one["bias"]} for one in gradients]
    wanted = _run(optim.muon(0.1), flat)
    torch.testing.assert_close(moved["conv"].reshape(4, 12), wanted["conv"], rtol=1e-12, atol=0)
    torch.testing.assert_close(moved["bias"], wanted["bias"], rtol=0, atol=0)


def test_galore_state_has_the_size_of_its_rank():
    state = optim.scale_by_galore(rank=2).init({"w": torch.zeros(50, 8), "b": torch.zeros(8)})
    assert state.inner.square["w"].shape == (2, 8) and state.basis["w"].shape == (50, 2)
    assert state.inner.square["b"].shape == (8,) and state.basis["b"] is None


def test_kron_equals_its_recurrence():
    key, gradients = random.key(3), _gradients(12, {"w": (4, 3)})
    ours = _run(optim.kron(0.1, key=key, precond_lr=0.2), gradients)["w"].numpy()
    w, m, q, r = np.ones((4, 3)), 0.0, np.eye(4), np.eye(3)
    for t, grads in enumerate(gradients):
        m = 0.9 * m + 0.1 * grads["w"].numpy()
        seen = m / (1 - 0.9 ** (t + 1))
        v = random.normal(random.fold_in(random.fold_in(key, t), 1), (4, 3), dtype=torch.float64).numpy()
        a, b = q @ seen @ r.T, np.linalg.solve(q.T, v) @ np.linalg.inv(r)
        new = []
        for factor, one, two in ((q, a @ a.T, b @ b.T), (r, a.T @ a, b.T @ b)):
            whole = one + two
            row = whole[np.argmax((whole**2).sum(1))]
            size = np.linalg.norm(row @ whole) / np.linalg.norm(row)
            assert size <= np.linalg.norm(whole, 2) * (1 + 1e-9)
            new.append(factor - 0.2 * np.triu(one - two) @ factor / size)
        q, r = new
        u = q.T @ q @ seen @ r.T @ r
        w = w - 0.1 * u / max(1, np.sqrt((u**2).mean()) / 1.1)
    np.testing.assert_allclose(ours, w, rtol=1e-9)


def test_kron_factors_converge_to_whitening():
    root = torch.tensor([[2.0, 0.0], [1.2, 0.5]], dtype=torch.float64)
    noise = torch.randn(6000, 2, generator=torch.Generator().manual_seed(0)).double() @ root.mT
    kron = optim.scale_by_kron(key=random.key(0), b1=0.0, precond_lr=0.02, min_ndim_triangular=1)
    params = torch.zeros(2, dtype=torch.float64)
    state, sums = kron.init(params), 0.0
    for t, row in enumerate(noise):
        u, state = kron.update(row, state, params)
        sums = sums + (t >= 2000) * torch.outer(u, u)
    torch.testing.assert_close(sums / 4000, torch.eye(2, dtype=torch.float64), rtol=0, atol=0.15)
