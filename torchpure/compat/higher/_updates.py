"""Optimizers of torch.optim as pure functions of their options; each option may be a tensor with a gradient."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from torchpure import optim

Options = Mapping[str, Any]
Make = Callable[[Options], optim.Optimizer[Any]]


def _with_decay(make: Make) -> Make:
    """Add weight decay to the gradients, and change their sign if `maximize` asks for it, before the rest."""

    def run(options: Options) -> optim.Optimizer[Any]:
        sign = [optim.scale(-1.0)] if options.get("maximize") else []
        return optim.chain(*sign, optim.add_decayed_weights(options.get("weight_decay", 0.0)), make(options))

    return run


def _sgd(options: Options) -> optim.Optimizer[Any]:
    return optim.sgd(
        options["lr"],
        momentum=options["momentum"],
        dampening=options["dampening"],
        nesterov=options["nesterov"],
    )


def _adam(options: Options) -> optim.Optimizer[Any]:
    (b1, b2), eps = options["betas"], options["eps"]
    if options.get("amsgrad"):
        return optim.amsgrad(options["lr"], b1=b1, b2=b2, eps=eps, correct_after_max=True)
    return optim.adam(options["lr"], b1=b1, b2=b2, eps=eps)


def _adamw(options: Options) -> optim.Optimizer[Any]:
    (b1, b2), eps = options["betas"], options["eps"]
    made = optim.adamw(options["lr"], b1=b1, b2=b2, eps=eps, weight_decay=options["weight_decay"])
    return optim.chain(optim.scale(-1.0), made) if options.get("maximize") else made


def _adagrad(options: Options) -> optim.Optimizer[Any]:
    rate, decay = options["lr"], options["lr_decay"]
    start = options["initial_accumulator_value"]
    return optim.adagrad(
        lambda step: rate / (1 + step * decay), initial_accumulator_value=start, eps=options["eps"], eps_in_sqrt=False
    )


def _rmsprop(options: Options) -> optim.Optimizer[Any]:
    momentum = options["momentum"]
    moves = isinstance(momentum, torch.Tensor) or momentum > 0
    return optim.rmsprop(
        options["lr"],
        decay=options["alpha"],
        eps=options["eps"],
        momentum=momentum if moves else None,
        centered=options["centered"],
        eps_in_sqrt=False,
    )


def _rprop(options: Options) -> optim.Optimizer[Any]:
    (minus, plus), (least, most) = options["etas"], options["step_sizes"]
    return optim.rprop(options["lr"], eta_minus=minus, eta_plus=plus, min_step_size=least, max_step_size=most)


def _adadelta(options: Options) -> optim.Optimizer[Any]:
    return optim.adadelta(options["lr"], rho=options["rho"], eps=options["eps"])


def _adamax(options: Options) -> optim.Optimizer[Any]:
    b1, b2 = options["betas"]
    return optim.adamax(options["lr"], b1=b1, b2=b2, eps=options["eps"])


def _asgd(options: Options) -> optim.Optimizer[Any]:
    return optim.asgd(options["lr"], lambd=options["lambd"], alpha=options["alpha"], t0=options["t0"])


MAKERS: dict[type[torch.optim.Optimizer], Make] = {
    torch.optim.SGD: _with_decay(_sgd),
    torch.optim.Adam: _with_decay(_adam),
    torch.optim.AdamW: _adamw,
    torch.optim.Adadelta: _with_decay(_adadelta),
    torch.optim.Adagrad: _with_decay(_adagrad),
    torch.optim.Adamax: _with_decay(_adamax),
    torch.optim.ASGD: _with_decay(_asgd),
    torch.optim.RMSprop: _with_decay(_rmsprop),
    torch.optim.Rprop: _with_decay(_rprop),
}
