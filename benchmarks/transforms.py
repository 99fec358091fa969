"""The cost of transforms, compared with torch.func on the same function: the article's network on 40 points."""

import torch
from torch import nn
from torch.func import functional_call

import torchpure as tp

from ._harness import Run, report, report_cases, times

COMPILED, EAGER = "jit", "eager"
OURS, SAME, THEIRS = "torchpure", "torchpure, functional_call", "torch.func"
SETTINGS = {
    OURS: "tp's transform of net(params, x), with net = tp.functional(module)",
    SAME: "tp's transform of torch.func.functional_call(module, params, (x,))",
    THEIRS: "torch.func's transform of the same",
}


def main() -> None:
    """Compare each transform with that of torch.func, for both ways to call a module."""
    module = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))
    net = tp.functional(module)
    params = {name: leaf.detach() for name, leaf in module.named_parameters()}
    x = torch.linspace(0, 2 * torch.pi, 40)[:, None]
    y = 2 * torch.sin(x + 2 * torch.pi)
    calls = {OURS: net, SAME: lambda p, x: functional_call(module, p, (x,)), THEIRS: None}
    calls[THEIRS] = calls[SAME]
    losses = {name: lambda p, call=call: nn.functional.mse_loss(call(p, x), y) for name, call in calls.items()}
    points = {name: lambda p, x, call=call: call(p, x[None])[0, 0] for name, call in calls.items()}
    library = {OURS: tp, SAME: tp, THEIRS: torch.func}
    made = {
        "grad": lambda lib, name: (lib.grad(losses[name]), (params,)),
        "value_and_grad": lambda lib, name: (_value_and_grad(lib, losses[name]), (params,)),
        "vmap(grad)": lambda lib, name: (lib.vmap(lib.grad(points[name]), in_dims=(None, 0)), (params, x)),
        "jvp": lambda lib, name: (lambda p: lib.jvp(losses[name], (p,), (params,)), (params,)),
    }
    for title, make in made.items():
        programs = {name: _repeat(*make(library[name], name)) for name in calls}
        bar = 0.6 if "vmap" not in title and title != "jvp" else 1.0
        report(f"transforms: {title}", times(programs, 300), OURS, {THEIRS: bar}, SETTINGS)
    large_object()
    compiled_layers()


class Trainer:
    """An object from which a million others can be reached."""

    def __init__(self) -> None:
        self.records = [{"step": number} for number in range(1_000_000)]

    def loss(self, w: torch.Tensor) -> torch.Tensor:
        """Return a loss that uses none of them."""
        return (w * w).sum()


def large_object() -> None:
    """Compare the gradient of a method of a large object with that of a function."""
    method, function = "a method of an object with a million items", "a function"
    calls = {method: tp.grad(Trainer().loss), function: tp.grad(lambda w: (w * w).sum())}
    w = torch.ones(3)
    programs = {name: _repeat(call, (w,)) for name, call in calls.items()}
    settings = {name: f"tp.grad of {name}, whose first call is over" for name in calls}
    for run in programs.values():
        run(1)
    report("transforms: what can be reached", times(programs, 300), method, {function: 1.3}, settings)


def compiled_layers() -> None:
    """Compare compiled layers with the same function in eager mode: forward, gradient, gradient of each sample."""
    cases = {}
    for title, (fn, args) in _layers().items():
        programs = {COMPILED: _repeat(tp.jit(fn), args), EAGER: _repeat(fn, args)}
        for run in programs.values():
            run(2)
        cases[title] = times(programs, 20)
    report_cases("transforms: compiled layers", cases, COMPILED, EAGER, 0.95)


def _layers() -> dict:
    sequence = tp.random.normal(tp.random.key(0), (64, 16, 64))  # steps, sequences, features
    pictures = tp.random.normal(tp.random.key(1), (32, 3, 32, 32))
    made = {}
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        forward, params = _function(kind(64, 128))
        loss = _square(lambda p, x, forward=forward: forward(p, x)[0])
        made |= {
            kind.__name__: (forward, (params, sequence)),
            f"{kind.__name__}, grad": (tp.grad(loss), (params, sequence)),
        }
    body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3))
    for order in (torch.contiguous_format, torch.channels_last):
        forward, params = _function(body.to(memory_format=order))
        args, name = (params, pictures.contiguous(memory_format=order)), str(order).removeprefix("torch.")
        made[f"convolutions, {name}, grad"] = tp.grad(_square(forward)), args
        single = tp.grad(lambda p, x, forward=forward: (forward(p, x[None]) ** 2).mean())
        made[f"convolutions, {name}, grad of each picture"] = tp.vmap(single, in_dims=(None, 0)), args
    return made


def _function(module: nn.Module) -> tuple:
    params = {name: leaf.detach().clone() for name, leaf in module.named_parameters()}
    return lambda p, x: functional_call(module, p, (x,)), params


def _square(fn):
    return lambda p, x: (fn(p, x) ** 2).mean()


def _value_and_grad(lib, loss):
    return lib.value_and_grad(loss) if lib is tp else lib.grad_and_value(loss)


def _repeat(call, args) -> Run:
    def run(count: int) -> None:
        for _ in range(count):
            call(*args)

    return run
