"""Losses of a fit, and what is measured at its end: R² and relative error, or accuracy and the confusion matrix."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure.data import Preprocessing

from ._config import FitConfig
from ._network import Network
from ._points import Sample

MAX_ROWS_AT_ONCE = 2**15
NAMES = {
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "huber": "Huber loss",
    "cross-entropy": "cross-entropy",
}
Loss = Callable[[Tensor, Tensor], Tensor]


def _mean_square(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


_LOSSES: dict[str, Loss] = {
    "mse": _mean_square,
    "mae": F.l1_loss,
    "huber": F.huber_loss,  # quadratic up to one standard deviation of the target
    "cross-entropy": F.cross_entropy,
}


def loss_name(config: FitConfig, preprocessing: Preprocessing) -> str:
    """Return the loss of a fit: cross-entropy for classes, and mean squares by default."""
    return "cross-entropy" if preprocessing.classes else config.loss or "mse"


def standard_loss(name: str) -> Loss:
    """Return the loss of the core's output and a standardised target, shape ()."""
    loss = _LOSSES[name]
    return lambda output, target: loss(output.squeeze(-1) if output.shape[-1] == 1 else output, target)


def unit(name: str, network: Network) -> float:
    """Return the unit of the loss in the user's units; with several targets it stays in standard deviations."""
    return unit_of(name, network.target_scale)


def unit_of(name: str, scale: Tensor) -> float:
    """Return the unit of the loss for the scale of the target."""
    return 1.0 if name == "cross-entropy" or scale.ndim else float(scale) ** (1 if name == "mae" else 2)


def measure_loss(network: Network, sample: Sample, name: str) -> float:
    """Return the loss of a sample in the user's units, computed in float64."""
    return _loss(network, in_parts(network, sample.x), sample.y, name)


@torch.no_grad()
def in_parts(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a model to some rows at a time, so that memory is bounded."""
    return torch.cat([model(rows) for rows in x.split(MAX_ROWS_AT_ONCE)])


def measure(network: Network, sample: Sample, name: str) -> dict[str, Any]:
    """Return the loss of a sample under "loss", and how good the predictions are.

    For numbers: "r2", 1 - Σ(p - y)² / Σ(y - mean y)², and "relative_error", ‖p - y‖ / ‖y‖, each a mean over the
    targets. For classes: "accuracy", and "confusion", a list with one row for each true class.
    """
    output = in_parts(network, sample.x)
    measured = {"loss": _loss(network, output, sample.y, name)}
    return measured | (_of_classes(output, sample.y) if name == "cross-entropy" else _of_numbers(output, sample.y))


def _loss(network: Network, output: Tensor, y: Tensor, name: str) -> float:
    return float(loss_in_units(name, output, y, network.target_scale))


def loss_in_units(name: str, output: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """Return the loss of predictions in the user's units, computed in float64, shape ()."""
    if name == "mse" and not scale.ndim:
        return _mean_square(output, y)
    if name == "cross-entropy":
        return F.cross_entropy(output.to(torch.float64), y)
    loss = _LOSSES[name](output / scale, y / scale)
    return loss if scale.ndim else loss * (scale if name == "mae" else scale.square())


def _of_numbers(output: Tensor, y: Tensor) -> dict[str, float | None]:
    errors = (output - y).square().sum(0)
    return {
        "r2": _finite(1 - errors / (y - y.mean(0)).square().sum(0)),
        "relative_error": _finite((errors / y.square().sum(0)).sqrt()),
    }


def _of_classes(output: Tensor, y: Tensor) -> dict[str, Any]:
    count, predicted = output.shape[1], output.argmax(1)
    confusion = torch.bincount(y * count + predicted, minlength=count * count).view(count, count)
    return {"accuracy": float((predicted == y).double().mean()), "confusion": confusion.tolist()}


def _finite(values: Tensor) -> float | None:
    value = float(values.mean())
    return value if math.isfinite(value) else None
