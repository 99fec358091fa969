"""Metrics: numbers of a report."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._progress import Progress

Metric = Callable[[Progress], Any]  # a number, or a tensor of shape ()


def mean_loss(progress: Progress) -> Tensor:
    """Return the mean loss of all steps since the last report."""
    return progress.losses.mean()


def measure(metric: Metric, progress: Progress, like: Tensor) -> Tensor:
    """Return a metric as a tensor of the dtype and device of `like`."""
    return torch.as_tensor(metric(progress), dtype=like.dtype, device=like.device).detach()
