"""The table that the tests of optimizers run over: a line for each, as docs/adding.md tells.

The key is the factory's name, or "name, variant". See `testing.Case` for the fields.
"""

import torch

from torchpure import optim
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
}
