"""A fit of 10,000 steps that is saved every 100 steps, against the same fit without checkpoints.

Both report every 100 steps, so that their windows are the same. Times are processor times of the whole call, with the
thread that writes: on a busy machine the clock on the wall says nothing. Each case is run once before, to compile.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import torchpure as tp

from ._harness import REPEATS, report_cases

STEPS, EVERY, BAR = 10_000, 100, 1.03
SAVED, PLAIN = "with checkpoints", "without"


def _article() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 5), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))


def _wide() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 1))


def _cases() -> dict[str, tuple[nn.Module, tuple[torch.Tensor, torch.Tensor], dict[str, Any]]]:
    points, rows = torch.linspace(0, 1, 40)[:, None], torch.rand(4096, 16)
    target = rows.sum(1, keepdim=True)
    return {
        "article's network, compiled": (_article(), (points, points.sin()), {}),
        "article's network, eager": (_article(), (points, points.sin()), {"jit": False}),
        "16-128-128-1, batch 128, compiled": (_wide(), (rows, target), {"batch_size": 128}),
    }


def _seconds(module: nn.Module, data: Any, options: dict[str, Any]) -> float:
    start = time.process_time()
    tp.fit(module, data, optimizer=tp.optim.adam(1e-3), steps=STEPS, every=EVERY, key=tp.random.key(0), **options)
    return time.process_time() - start


def main() -> None:
    """Run both in turns."""
    torch.set_num_threads(1)
    results: dict[str, dict[str, list[float]]] = {}
    for name, (module, data, options) in _cases().items():
        rows = results[name] = {SAVED: [], PLAIN: []}
        for number in range(REPEATS + 1):
            plain = _seconds(module, data, options)
            with tempfile.TemporaryDirectory() as folder, tp.train.Checkpointer(Path(folder), every=EVERY) as saved:
                with_checkpoints = _seconds(module, data, options | {"checkpoint": saved})
            if number:
                rows[PLAIN].append(plain * 1e6)
                rows[SAVED].append(with_checkpoints * 1e6)
    report_cases("checkpoint_cost: 10,000 steps, saved every 100", results, SAVED, PLAIN, BAR)
