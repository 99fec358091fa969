"""The tables that the tests run over: add a line here for each new optimizer or schedule."""

from collections.abc import Callable
from typing import Any

import torch

from torchpure import optim

# name -> how to make it for a rate
OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda rate: optim.sgd(rate),
    "momentum": lambda rate: optim.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optim.sgd(rate, momentum=0.9, nesterov=True),
    "adam": lambda rate: optim.adam(rate),
    "adamw": lambda rate: optim.adamw(rate, decay=0.1),
    "chain": lambda rate: optim.chain(optim.clip_by_global_norm(0.5), optim.adam(rate)),
}

# name -> (ours, torch.optim's) for one rate; eps and betas are both sides' defaults
TORCH_OPTIMIZERS: dict[str, tuple[Callable[[float], optim.Optimizer], Callable[..., torch.optim.Optimizer]]] = {
    "sgd": (lambda rate: optim.sgd(rate), lambda p, lr: torch.optim.SGD(p, lr=lr)),
    "momentum": (lambda rate: optim.sgd(rate, momentum=0.9), lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)),
    "nesterov": (
        lambda rate: optim.sgd(rate, momentum=0.9, nesterov=True),
        lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True),
    ),
    "adam": (lambda rate: optim.adam(rate), lambda p, lr: torch.optim.Adam(p, lr=lr)),
    "adamw": (lambda rate: optim.adamw(rate), lambda p, lr: torch.optim.AdamW(p, lr=lr)),
}
