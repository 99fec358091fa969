"""The table that the tests of optimizers run over: a line for each, as docs/adding.md tells.

The key is the factory's name, or "name, variant". See `testing.Case` for the fields.
"""

import torch

from torchpure import optim, random
from torchpure.testing import Case

OPTIMIZERS: dict[str, Case] = {
    "adam": Case(
        factory=optim.adam,
        optax="adam",
        torch=(
            torch.optim.Adam,
            lambda lr=1e-3, betas=(0.9, 0.999), eps=1e-8: optim.adam(lr, b1=betas[0], b2=betas[1], eps=eps),
        ),
    ),
    "adamw": Case(
        factory=optim.adamw,
        hyper={"decay": 0.1},
        optax="adamw",
        torch=(
            torch.optim.AdamW,
            lambda lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2: optim.adamw(
                lr, b1=betas[0], b2=betas[1], eps=eps, decay=weight_decay
            ),
        ),
    ),
    "lion": Case(factory=optim.lion, rate=0.01, rosenbrock=(0.01, 600), optax="lion"),
    "sgd": Case(
        factory=optim.sgd,
        fixed=("momentum",),
        rosenbrock=(1e-3, 2000),
        optax="sgd",
        torch=(
            torch.optim.SGD,
            lambda lr=1e-3, momentum=0.0, nesterov=False: optim.sgd(lr, momentum=momentum, nesterov=nesterov),
        ),
    ),
    "sgd, momentum": Case(factory=optim.sgd, hyper={"momentum": 0.9}, rosenbrock=(1e-3, 1000), optax="sgd"),
    "sgd, nesterov": Case(
        factory=optim.sgd,
        hyper={"momentum": 0.9},
        options={"nesterov": True},
        rosenbrock=(1e-3, 1000),
        optax="sgd",
    ),
    "adan": Case(factory=optim.adan, optax="adan"),
    "novograd": Case(factory=optim.novograd, rate=0.01, optax="novograd"),
    "yogi": Case(factory=optim.yogi, optax="yogi"),
    "adabelief": Case(factory=optim.adabelief, optax="adabelief"),
    "adabelief, nesterov": Case(factory=optim.adabelief, options={"nesterov": True}, optax="adabelief"),
    "adadelta": Case(
        factory=optim.adadelta,
        rate=1.0,
        parabola=None,  # its first steps have the size of √eps
        rosenbrock=None,
        optax="adadelta",
        torch=(torch.optim.Adadelta, lambda lr=1.0, rho=0.9, eps=1e-6: optim.adadelta(lr, rho=rho, eps=eps)),
    ),
    "adagrad": Case(factory=optim.adagrad, rate=0.5, rosenbrock=(0.5, 600), optax="adagrad"),
    "adagrad, torch": Case(
        factory=optim.adagrad,
        rate=0.5,
        hyper={"initial_accumulator_value": 0.1},
        options={"eps_in_sqrt": False},
        rosenbrock=(0.5, 600),
        torch=(torch.optim.Adagrad, lambda **given: _torch_adagrad(**given)),
    ),
    "fromage": Case(factory=optim.fromage, rate=0.01, parabola=None, rosenbrock=None, optax="fromage"),
    "lamb": Case(factory=optim.lamb, rosenbrock=None, optax="lamb"),  # a leaf that comes to 0 does not leave it
    "lars": Case(
        factory=optim.lars,
        rate=0.1,
        hyper={"trust_coefficient": 0.1, "momentum": 0.9},
        parabola=None,  # steps in proportion to the parameters circle the minimum
        rosenbrock=None,
        optax="lars",
    ),
    "noisy_sgd": Case(
        factory=optim.noisy_sgd,
        hyper={"eta": 1e-6},
        options={"key": random.key(0)},
        rosenbrock=(1e-3, 2000),
        entrywise=False,  # a leaf's noise depends on its shape
    ),
}


def _torch_adagrad(lr=1e-2, lr_decay=0.0, eps=1e-10, initial_accumulator_value=0.0):
    rate = (lambda step: lr / (1 + step * lr_decay)) if lr_decay else lr
    return optim.adagrad(rate, eps=eps, initial_accumulator_value=initial_accumulator_value, eps_in_sqrt=False)
