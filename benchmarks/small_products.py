"""Small matrix products inside a compiled loop, compared with calls of torch.addmm, for a table of shapes.

Each step of the loop adds a product to its carry. The left factor changes at each step; else the compiler could move
the product out of the loop. There are only a few left factors, so that they stay in the cache. torch.addmm does the
work of a step in one call.
"""

from collections.abc import Callable

import torch
from torch import Tensor

import torchpure as tp

from ._harness import repeat, report_cases, times

THREADS = 1
FIGURE = "small products"
OURS, LIBRARY = "torchpure", "torch.addmm"
LEFTS, ROUNDS, BAR = 8, 25, 1.05
SHAPES = (
    *((1, 1, 1), (1, 5, 5), (1, 16, 16), (1, 64, 64), (1, 128, 128), (5, 5, 5), (5, 40, 5), (5, 40, 1), (5, 1, 40)),
    *((8, 8, 8), (8, 128, 8), (8, 64, 64), (16, 1, 16), (16, 16, 1), (16, 5, 16), (16, 16, 16), (16, 40, 16)),
    *((16, 128, 128), (40, 1, 5), (40, 5, 5), (40, 5, 1), (40, 8, 8), (40, 16, 16), (40, 1, 64), (40, 64, 64)),
    *((40, 64, 1), (40, 40, 40), (64, 1, 64), (64, 40, 1), (64, 40, 64), (64, 64, 1), (64, 5, 64), (64, 64, 64)),
    *((64, 128, 64), (128, 1, 128), (128, 5, 8), (128, 8, 5), (128, 16, 16), (128, 64, 64), (128, 128, 1)),
    *((128, 128, 16), (128, 128, 128)),
)  # (m, k, n)


def main() -> None:
    """Compare a step of the loop with a call of torch.addmm, for each shape."""
    cases = {}
    for m, k, n in SHAPES:
        k_left, k_right = tp.random.split(tp.random.key(0))
        lefts, right = tp.random.normal(k_left, (LEFTS, m, k)), tp.random.normal(k_right, (k, n))
        loop = tp.jit(_loop)
        _check(loop(lefts, right), lefts, right)
        programs = {OURS: repeat(lambda loop=loop, data=(lefts, right): loop(*data)), LIBRARY: _library(lefts, right)}
        count = max(5, min(50, 20_000_000 // (m * k * n * LEFTS * ROUNDS)))
        cases[f"{m} × {k} × {n}"] = times(programs, count, bursts=5, units=LEFTS * ROUNDS)
    report_cases(f"{FIGURE}: (m, k) @ (k, n), float32, µs a product", cases, OURS, LIBRARY, BAR)


def _loop(lefts: Tensor, right: Tensor) -> Tensor:
    def add(total: Tensor, left: Tensor) -> tuple[Tensor, None]:
        return total + left @ right * 1e-3, None

    def around(total: Tensor, _: None) -> tuple[Tensor, None]:
        return tp.scan(add, total, lefts)

    return tp.scan(around, torch.zeros(lefts.shape[1], right.shape[1]), None, length=ROUNDS)[0]


def _library(lefts: Tensor, right: Tensor) -> Callable[[int], None]:
    factors, total = lefts.unbind(), torch.zeros(lefts.shape[1], right.shape[1])

    def run(count: int) -> None:
        for _ in range(count * ROUNDS):
            for left in factors:
                torch.addmm(total, left, right, alpha=1e-3, out=total)

    return run


def _check(total: Tensor, lefts: Tensor, right: Tensor) -> None:
    wanted = lefts.sum(0) @ right * (ROUNDS * 1e-3)
    if not torch.allclose(total, wanted, rtol=1e-3, atol=1e-3):
        raise SystemExit(f"{FIGURE}: the loop is off by {(total - wanted).abs().max():.1e} at {tuple(lefts.shape)}")
