"""Keywords of torch.optim: a factory says what to write instead."""

import inspect

import pytest
import torch

from torchpure import optim

FACTORIES = [
    name
    for name in optim.__all__
    if inspect.isfunction(getattr(optim, name))
    and "learning_rate" in inspect.signature(getattr(optim, name)).parameters
]


@pytest.mark.parametrize("name", FACTORIES)
def test_a_factory_answers_lr(name):
    with pytest.raises(TypeError, match=rf"^{name}: there is no argument `lr`: write learning_rate$"):
        getattr(optim, name)(lr=0.1)


HINTS = {
    ("adam", "betas"): "write b1 and b2",
    ("adam", "momentum"): "write b1",
    ("adam", "amsgrad"): "use optim.amsgrad",
    ("adam", "weight_decay"): r"write chain\(add_decayed_weights\(weight_decay\), adam\(…\)\)",
    ("adam", "maximize"): r"write chain\(scale\(-1.0\), adam\(…\)\)",
    ("adam", "params"): "leave it out, and pass the parameters to init and step",
    ("adamw", "fused"): "leave it out: there is one way to step, which is differentiable",
    ("adan", "betas"): "write b1, b2 and b3",
    ("adagrad", "lr_decay"): r"write learning_rate=lambda step: lr / \(1 \+ step \* lr_decay\)",
    ("adafactor", "beta2_decay"): "write decay_rate, with the opposite sign",
    ("lbfgs", "history_size"): "write memory_size",
    ("muon", "momentum"): "write beta",
    ("muon", "ns_coefficients"): "write ns_coeffs",
    ("rmsprop", "alpha"): "write decay",
    ("rprop", "etas"): "write eta_minus and eta_plus",
    ("scale_by_adam", "lr"): "leave it out, and chain with scale_by_learning_rate",
    ("scale_by_adam", "betas"): "write b1 and b2",
}


@pytest.mark.parametrize(("name", "keyword"), HINTS)
def test_a_factory_says_what_to_write(name, keyword):
    with pytest.raises(TypeError, match=rf"^{name}: there is no argument `{keyword}`: {HINTS[name, keyword]}$"):
        getattr(optim, name)(**{keyword: 0.1})


def test_what_the_hints_say_is_what_torch_does():
    """The weight decay of torch's Adam and its `maximize`, and the decay of its Adagrad's learning rate."""
    rate, decay, start = 0.1, 0.3, torch.tensor([1.0, -2.0], dtype=torch.float64)
    pairs = [
        (torch.optim.Adam, {"weight_decay": decay}, optim.chain(optim.add_decayed_weights(decay), optim.adam(rate))),
        (torch.optim.Adam, {"maximize": True}, optim.chain(optim.scale(-1.0), optim.adam(rate))),
        (
            torch.optim.Adagrad,
            {"lr_decay": decay, "initial_accumulator_value": 0.5, "eps": 1e-10},
            optim.adagrad(
                lambda step: rate / (1 + step * decay), initial_accumulator_value=0.5, eps=1e-10, eps_in_sqrt=False
            ),
        ),
    ]
    for make, options, ours in pairs:
        leaf = start.clone().requires_grad_()
        theirs, params, state = make([leaf], lr=rate, **options), start, ours.init(start)
        for _ in range(3):
            leaf.grad = leaf.detach() ** 3
            theirs.step()
            params, state = ours.step(params**3, state, params)
        torch.testing.assert_close(params, leaf.detach())


def test_a_keyword_of_its_own_has_no_hint():
    assert optim.dadapt_adamw(betas=(0.8, 0.9)) and optim.sgd(0.1, momentum=0.9) and optim.asgd(0.1, alpha=0.5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'speed'"):
        optim.adam(0.1, speed=2)
