"""One eager step of torchopt's FuncOptimizer, ours and its own: three networks, Adam, in one run."""

import torch
from torch import nn

import torchpure.compat.torchopt as ours

from ._article import have
from ._harness import Run, Values, report_cases, times

WIDTHS = {"1-16-1": (1, 16, 1), "1-32-32-1": (1, 32, 32, 1), "1-64-64-64-64-1": (1, 64, 64, 64, 64, 1)}
BAR = 0.7


def _network(widths: tuple[int, ...]) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for i in range(len(widths) - 1) for layer in (nn.Linear(widths[i], widths[i + 1]), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def _steps(library, widths: tuple[int, ...], whole: bool) -> Run:
    """Return steps from parameters that are detached after each of them; `whole` counts the loss too."""
    net = _network(widths)
    names, x = [name for name, _ in net.named_parameters()], torch.linspace(0, 6, 32)[:, None]
    optimizer = library.FuncOptimizer(library.adam(1e-2))
    params = tuple(net.parameters())

    def loss_of(tensors):
        return (torch.func.functional_call(net, dict(zip(names, tensors, strict=True)), (x,)) - x.sin()).square().mean()

    def run(count: int) -> None:
        nonlocal params
        loss = loss_of(params)
        for _ in range(count):
            if whole:
                loss = loss_of(params)
            moved = optimizer.step(loss, params)
            library.stop_gradient(optimizer.state_dict())
            if whole:
                params = tuple(p.detach().requires_grad_() for p in moved)

    return run


def main() -> None:
    """Compare the step alone, and with the loss before it."""
    if not have("torchopt"):
        return
    import torchopt

    cases: dict[str, dict[str, Values]] = {}
    for title, widths in WIDTHS.items():
        for whole in (False, True):
            programs = {name: _steps(lib, widths, whole) for name, lib in (("ours", ours), ("torchopt", torchopt))}
            cases[f"{title}, {'loss and step' if whole else 'step'}"] = times(programs, 200)
    report_cases("compat", cases, "ours", "torchopt", BAR)
