"""One compiled update and its application: 20 tensors of 500,000 entries; time, and the memory that a step takes."""

import torch

import torchpure as tp

from ._harness import Run, report, times
from ._memory import memory

OURS = "torchpure, donated"
COUNT, SIZE, STEPS = 20, 500_000, 40
OPTIMIZERS = {
    "sgd, momentum": (tp.optim.sgd(1e-3, momentum=0.9), lambda p: torch.optim.SGD(p, torch.tensor(1e-3), momentum=0.9)),
    "adam": (tp.optim.adam(1e-3), lambda p: torch.optim.Adam(p, torch.tensor(1e-3))),
    "adamw": (tp.optim.adamw(1e-3), lambda p: torch.optim.AdamW(p, torch.tensor(1e-3))),
}
FUSED = {
    "sgd, momentum": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-3, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
}
SETTINGS = {
    OURS: "torch.compile of optim.donate(optimizer).step: the old tensors become the new ones",
    "torchpure": "torch.compile of optimizer.step: new tensors",
    "torch compiled": "torch.compile of torch.optim's step, in place; the learning rate is a tensor, as torch advises",
    "torch fused": "torch.optim with fused=True, in place, eager",
}


def _tensors(seed: int) -> tuple[torch.Tensor, ...]:
    return tuple(tp.random.normal(key, (SIZE,)) for key in tp.random.split(tp.random.key(seed), COUNT))


def _ours(optimizer) -> Run:
    params, grads = _tensors(0), _tensors(1)
    state = optimizer.init(params)
    step = torch.compile(lambda g, s, p: optimizer.step(g, s, p), fullgraph=True)

    def run(count: int) -> None:
        nonlocal params, state
        for _ in range(count):
            params, state = step(grads, state, params)

    return run


def _theirs(make, compiled: bool) -> Run:
    leaves = [torch.nn.Parameter(leaf) for leaf in _tensors(0)]
    for leaf, grad in zip(leaves, _tensors(1), strict=True):
        leaf.grad = grad
    optimizer = make(leaves)
    optimizer.step()
    step = torch.compile(lambda: optimizer.step()) if compiled else optimizer.step

    def run(count: int) -> None:
        for _ in range(count):
            step()

    return run


def main() -> None:
    """Compare each optimizer with torch's, compiled."""
    for name, (ours, theirs) in OPTIMIZERS.items():
        programs = {
            OURS: _ours(tp.optim.donate(ours)),
            "torchpure": _ours(ours),
            "torch compiled": _theirs(theirs, compiled=True),
            "torch fused": _theirs(FUSED[name], compiled=False),
        }
        rows = times(programs, STEPS)
        extra = {which: memory(run) for which, run in programs.items()}
        settings = {which: f"{extra[which]:.1f} MiB more while it runs; {text}" for which, text in SETTINGS.items()}
        report(f"optim compiled: {name}", rows, OURS, {"torch compiled": 1.05}, settings)
