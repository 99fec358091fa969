"""What the table of cases does not ask: a real network, odd tensors, the kernel, and the words of errors."""

import pytest
import torch
from torch import nn

from torchpure import functional, optim, testing, tree, value_and_grad

# name -> (ours, torch.optim's) for one learning rate; eps and betas are both sides' defaults
TORCH_OPTIMIZERS = {
    "sgd": (lambda lr: optim.sgd(lr), lambda p, lr: torch.optim.SGD(p, lr=lr)),
    "nesterov": (
        lambda lr: optim.sgd(lr, momentum=0.9, nesterov=True),
        lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True),
    ),
    "adam": (lambda lr: optim.adam(lr), lambda p, lr: torch.optim.Adam(p, lr=lr)),
    "adamw": (lambda lr: optim.adamw(lr), lambda p, lr: torch.optim.AdamW(p, lr=lr)),
}


def _network_and_data():
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    return module, x, x.prod(1, keepdim=True).sin()


@pytest.mark.parametrize("way", ["step", "update"])
@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_float64_equals_torch_over_200_steps(name, way):
    ours, theirs = TORCH_OPTIMIZERS[name]
    module, x, y = _network_and_data()
    net, optimizer = functional(module), ours(1e-2)
    gradient = value_and_grad(lambda p: nn.functional.mse_loss(net(p, x), y))
    params, state = net.params, optimizer.init(net.params)
    torch_optimizer = theirs(module.parameters(), 1e-2)
    for _ in range(200):
        _, grads = gradient(params)
        if way == "step":
            params, state = optimizer.step(grads, state, params)
        else:
            updates, state = optimizer.update(grads, state, params)
            params = optim.apply_updates(params, updates)
        torch_optimizer.zero_grad()
        nn.functional.mse_loss(module(x), y).backward()
        torch_optimizer.step()
    expected = {key: value.detach() for key, value in module.named_parameters()}
    difference = tree.norm(tree.sub(params, expected)) / tree.norm(expected)
    assert difference <= 1e-13
    testing.assert_trees_close(params, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    "change",
    [
        lambda p, g, s: (p, {**g, "w": g["w"].t().contiguous().t()}, s),  # the fused kernel reads memory in order
        lambda p, g, s: ({**p, "w": p["w"].t().contiguous().t()}, g, s),
        lambda p, g, s: (p, {**g, "w": torch.zeros(1, 1, dtype=torch.float64).expand(3, 2)}, s),
        lambda p, g, s: ({**p, "b": p["b"].float()}, {**g, "b": g["b"].float()}, s),
        lambda p, g, s: ({**p, "b": p["b"].clone().requires_grad_()}, g, s),
        lambda p, g, s: ({**p, "b": nn.Parameter(p["b"].clone(), requires_grad=False)}, g, s),
    ],
    ids=[
        "gradient transposed",
        "parameter transposed",
        "gradient expanded",
        "two dtypes",
        "requires grad",
        "Parameter",
    ],
)
def test_kernel_equals_formula_for_odd_tensors(change):
    optimizer = optim.adam(0.1)
    params = {"w": torch.arange(6, dtype=torch.float64).reshape(3, 2) / 7, "b": torch.ones(2, dtype=torch.float64)}
    grads = {"w": torch.arange(6, dtype=torch.float64).reshape(3, 2).sin(), "b": -torch.ones(2, dtype=torch.float64)}
    params, grads, _ = change(params, grads, None)
    state = optimizer.init(params)
    one = optimizer.step(grads, state, params)
    updates, new_state = optimizer.update(grads, state, params)
    rtol = 1e-6 if params["b"].dtype == torch.float32 else 1e-13
    testing.assert_trees_close(one, (optim.apply_updates(params, updates), new_state), rtol=rtol)
    assert one[0]["b"].requires_grad == params["b"].requires_grad


def test_rate_may_be_a_tensor_a_number_or_a_schedule():
    params, grads = torch.ones(3, dtype=torch.float64), torch.full((3,), 0.5, dtype=torch.float64)
    learning_rates = (0.1, torch.tensor(0.1, dtype=torch.float64), optim.constant_schedule(0.1))
    for make in (optim.sgd, optim.adam, optim.adamw):
        results = [make(lr).step(grads, make(lr).init(params), params) for lr in learning_rates]
        testing.assert_trees_close(results[1], results[0], rtol=1e-15)
        testing.assert_trees_close(results[2], results[0], rtol=1e-15)


def test_state_of_another_structure_is_an_error():
    optimizer = optim.adam(0.1)
    params = {"w": torch.ones(2), "b": torch.ones(1)}
    with pytest.raises(ValueError, match=r"adam: trees differ at `\.`: wanted keys 'w', 'b', got 'w' \(missing 'b'"):
        optimizer.step({"w": torch.ones(2)}, optimizer.init(params), params)


def test_wrong_gradient_shape_is_an_error():
    optimizer, params = optim.adam(0.1), {"w": torch.ones(2)}
    with pytest.raises(
        ValueError,
        match=r"adam: the gradient at `w` is a float32 tensor of shape \(3,\), the parameter a .* shape \(2,\)",
    ):
        optimizer.step({"w": torch.ones(3)}, optimizer.init(params), params)
    broadcast = torch.ones(1)
    with pytest.raises(ValueError, match=r"sgd: the gradient at `w` is .* shape \(1,\), the parameter .* \(2,\)"):
        optim.sgd(0.1).step({"w": broadcast}, optim.sgd(0.1).init(params), params)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.adam(-1.0), ValueError, "adam: learning_rate must be finite and at least 0, got -1.0"),
        (lambda: optim.sgd(float("nan")), ValueError, "sgd: learning_rate must be finite"),
        (lambda: optim.adam("fast"), TypeError, "adam: learning_rate must be a number, a tensor of shape"),
        (lambda: optim.adam(True), TypeError, "adam: learning_rate must be a number"),
        (
            lambda: optim.adam(torch.ones(2)),
            ValueError,
            r"adam: learning_rate must be a tensor of shape \(\), got shape \(2,\)",
        ),
        (lambda: optim.adam(0.1, b1=1.0), ValueError, r"adam: b1 must be in \[0, 1\), got 1.0"),
        (lambda: optim.adam(0.1, b2=-0.1), ValueError, "adam: b2 must be in"),
        (lambda: optim.adam(0.1, eps=-1.0), ValueError, "adam: eps must be finite and at least 0"),
        (lambda: optim.adamw(0.1, weight_decay=-1.0), ValueError, "adamw: weight_decay must be finite"),
        (lambda: optim.sgd(0.1, momentum=1.5), ValueError, "sgd: momentum must be in"),
        (lambda: optim.sgd(0.1, nesterov=True), ValueError, "sgd: nesterov needs a momentum"),
        (lambda: optim.chain(), ValueError, "chain: wanted at least one optimizer"),
        (lambda: optim.clip_by_global_norm(-1.0), ValueError, "clip_by_global_norm: max_norm must be"),
        (lambda: optim.exponential_decay(0.1, 0, 0.5), ValueError, "transition_steps must be greater than 0"),
        (lambda: optim.exponential_decay(0.1, 5, 0.0), ValueError, "decay_rate must not be 0"),
        (lambda: optim.cosine_decay_schedule(0.1, 0), ValueError, "decay_steps must be greater than 0"),
        (lambda: optim.warmup_cosine_decay_schedule(0, 1, -1, 5), ValueError, "warmup_steps must be at least 0"),
        (lambda: optim.warmup_cosine_decay_schedule(0, 1, 5, 5), ValueError, "decay_steps counts the warm-up"),
    ],
)
def test_bad_hyper_parameters_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
