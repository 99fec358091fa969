"""One eager optimizer step on 200 tensors of 50,000 entries, and on 1,000 tensors of 64."""

import torch

import torchpure as tp

from ._harness import Run, report, times

OURS = "torchpure"
SHAPES = {"200 × 50,000": (200, 50_000, 5), "1,000 × 64": (1000, 64, 20)}
OPTIMIZERS = {
    "sgd": (tp.optim.sgd(1e-3), lambda p, **o: torch.optim.SGD(p, 1e-3, **o)),
    "sgd, momentum": (tp.optim.sgd(1e-3, momentum=0.9), lambda p, **o: torch.optim.SGD(p, 1e-3, momentum=0.9, **o)),
    "adam": (tp.optim.adam(1e-3), lambda p, **o: torch.optim.Adam(p, 1e-3, **o)),
    "adamw": (tp.optim.adamw(1e-3), lambda p, **o: torch.optim.AdamW(p, 1e-3, **o)),
}
SETTINGS = {
    OURS: "optimizer.step: new parameters and state, the old ones as they were",
    "torchpure, donated": "the same of optim.donate(optimizer): the old ones are gone",
    "torch foreach": "torch.optim with foreach=True, in place",
    "torch fused": "torch.optim with fused=True, in place",
}


def _tensors(count: int, size: int, seed: int) -> list[torch.Tensor]:
    keys = tp.random.split(tp.random.key(seed), count)
    return [tp.random.normal(key, (size,)) for key in keys]


def _ours(optimizer, params, grads) -> Run:
    state = optimizer.init(params)

    def run(count: int) -> None:
        nonlocal params, state
        for _ in range(count):
            params, state = optimizer.step(grads, state, params)

    return run


def _theirs(make, params, grads, **options) -> Run:
    leaves = [torch.nn.Parameter(leaf.clone()) for leaf in params]
    for leaf, grad in zip(leaves, grads, strict=True):
        leaf.grad = grad.clone()
    optimizer = make(leaves, **options)

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.step()

    return run


def main() -> None:
    """Compare each optimizer on both sets of shapes."""
    for title, (count, size, steps) in SHAPES.items():
        params, grads = _tensors(count, size, 0), _tensors(count, size, 1)
        for name, (ours, theirs) in OPTIMIZERS.items():
            programs = {
                OURS: _ours(ours, tuple(params), tuple(grads)),
                "torchpure, donated": _ours(tp.optim.donate(ours), tuple(map(torch.clone, params)), tuple(grads)),
                "torch foreach": _theirs(theirs, params, grads, foreach=True),
                "torch fused": _theirs(theirs, params, grads, fused=True),
            }
            report(f"optim: {name}, {title}", times(programs, steps), OURS, {"torch foreach": 1.0}, SETTINGS)
