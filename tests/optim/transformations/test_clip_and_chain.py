"""Clipping, chains and updates."""

import pytest
import torch

from torchpure import grad, optim, testing, tree, vmap


def test_clip_equals_torch():
    grads = {"w": torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), "b": None}
    clip = optim.clip_by_global_norm(0.7)
    clipped, _ = clip.update(grads, clip.init(grads), grads)
    parameter = torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
    parameter.grad = grads["w"].clone()
    torch.nn.utils.clip_grad_norm_([parameter], 0.7)
    torch.testing.assert_close(clipped["w"], parameter.grad, rtol=1e-5, atol=0)  # torch adds 1e-6 to the norm
    assert clipped["b"] is None
    torch.testing.assert_close(tree.norm(clipped), torch.tensor(0.7, dtype=torch.float64), rtol=1e-14, atol=0)


@pytest.mark.parametrize("scale", [0.0, 0.1])
def test_clip_does_not_change_small_gradients(scale):
    grads = (torch.tensor([0.3, -0.4], dtype=torch.float64) * scale,)
    clip = optim.clip_by_global_norm(1.0)
    assert torch.equal(clip.update(grads, clip.init(grads), grads)[0][0], grads[0])


def test_clip_has_finite_derivatives_at_zero():
    clip = optim.clip_by_global_norm(1.0)
    derivative = grad(lambda g: clip.update((g,), clip.init(g), g)[0][0].sum())(torch.zeros(2, dtype=torch.float64))
    assert torch.equal(derivative, torch.ones(2, dtype=torch.float64))


def test_clip_is_batched_by_vmap():
    grads = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64)
    clip = optim.clip_by_global_norm(1.0)
    clipped = vmap(lambda g: clip.update(g, clip.init(g), g)[0])(grads)
    torch.testing.assert_close(clipped, torch.tensor([[0.6, 0.8], [0.3, 0.4]], dtype=torch.float64), rtol=1e-14, atol=0)


def _run(optimizer, steps=5):
    params = {"w": torch.tensor([1.0, -2.0], dtype=torch.float64)}
    state = optimizer.init(params)
    for _ in range(steps):
        params, state = optimizer.step(grad(lambda p: (p["w"] ** 4).sum())(params), state, params)
    return params


def test_law_chain_of_one_equals_that_one():
    assert torch.equal(_run(optim.chain(optim.adam(0.1)))["w"], _run(optim.adam(0.1))["w"])


def test_law_chain_is_associative():
    a, b, c = optim.clip_by_global_norm(3.0), optim.clip_by_global_norm(1.0), optim.sgd(0.1, momentum=0.5)
    flat = _run(optim.chain(a, b, c))
    testing.assert_trees_close(_run(optim.chain(optim.chain(a, b), c)), flat, rtol=0.0)
    testing.assert_trees_close(_run(optim.chain(a, optim.chain(b, c))), flat, rtol=0.0)


def test_apply_updates_keeps_dtypes_and_its_error_names_the_path():
    moved = optim.apply_updates({"w": torch.ones(2, dtype=torch.bfloat16)}, {"w": torch.full((2,), 0.5)})
    assert moved["w"].dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"apply_updates: trees differ at `layer`: wanted keys 'w', got 'v'"):
        optim.apply_updates({"layer": {"w": torch.ones(1)}}, {"layer": {"v": torch.ones(1)}})
