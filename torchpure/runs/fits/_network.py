"""The network of a fit: torch.nn layers between two fixed standardisations."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchpure.data import Preprocessing, standardised
from torchpure.errors import InputError

from ._config import FitConfig
from ._embedding import Embed
from ._points import Sample

MAX_PARAMETERS = 50_000_000
MAX_VALUES = 2**29  # rows times widths: the values that one step saves for its backward pass
_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "sigmoid": nn.Sigmoid}


class Units(NamedTuple):
    """The mean and the scale of each column."""

    mean: Tensor
    scale: Tensor


class Network(nn.Module):
    """Map inputs to targets in the user's units, float64; `core` takes and returns standardised values.

    Mean and scale are buffers that no call changes, so a saved state dict reproduces the predictions.
    """

    input_mean: Tensor
    input_scale: Tensor
    target_mean: Tensor
    target_scale: Tensor

    def __init__(self, core: nn.Sequential, inputs: Units, target: Units) -> None:
        super().__init__()
        self.core = core
        self.register_buffer("input_mean", inputs.mean)
        self.register_buffer("input_scale", inputs.scale)
        self.register_buffer("target_mean", target.mean)
        self.register_buffer("target_scale", target.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Predict, (rows, features) -> (rows,), or (rows, targets), or the logits of classes, (rows, classes)."""
        output = self.core(self.encode(x))
        output = output.squeeze(-1) if output.shape[-1] == 1 else output
        return output.to(self.target_mean) * self.target_scale + self.target_mean

    def encode(self, x: Tensor) -> Tensor:
        """Standardise inputs for `core`.

        Raises:
            ValueError: the last dimension is not that of the features; it might broadcast.
        """
        if x.ndim == 0 or x.shape[-1] != len(self.input_mean):
            raise ValueError(
                f"model: wanted inputs of shape (rows, {len(self.input_mean)}), a column for each feature, got "
                f"{(*x.shape,)}; `encode` of a loaded run makes features of columns by name"
            )
        return ((x - self.input_mean) / self.input_scale).to(next(self.core.parameters()))

    def encode_target(self, y: Tensor) -> Tensor:
        """Standardise targets, as `core` should return them; classes stay indices."""
        if not y.is_floating_point():
            return y.to(next(self.core.parameters()).device)
        return ((y - self.target_mean) / self.target_scale).to(next(self.core.parameters()))


def build(config: FitConfig, train: Sample, preprocessing: Preprocessing) -> Network:
    """Build the network without initial values; a key gives them later.

    Raises:
        InputError: the device cannot be used, or the network is too large for the points.
    """
    rows = len(train.y) if config.batch_size is None else min(config.batch_size, len(train.y))
    network = blank(config, preprocessing, rows)
    inputs, target = standardisation(config, train, preprocessing)
    network.input_mean.copy_(inputs.mean)
    network.input_scale.copy_(inputs.scale)
    network.target_mean.copy_(target.mean)
    network.target_scale.copy_(target.scale)
    return network


def standardisation(config: FitConfig, train: Sample, preprocessing: Preprocessing) -> tuple[Units, Units]:
    """Return the units of the inputs and of the target."""
    num_features, num_targets = train.x.shape[1], len(preprocessing.targets)
    plain = _no_units((num_features,)), _no_units((num_targets,) if num_targets > 1 else ())
    if config.preset == "article":
        return plain
    scaled, found = standardised(preprocessing.inputs), units(train.x)
    inputs = Units(torch.where(scaled, found.mean, 0.0), torch.where(scaled, found.scale, 1.0))
    return inputs, plain[1] if preprocessing.classes else units(train.y)


def blank(config: FitConfig, preprocessing: Preprocessing, rows: int = 1) -> Network:
    """Build the network of a configuration, to which the values of a saved run are loaded.

    Raises:
        InputError: the device cannot be used, or the network is too large for `rows` points.
    """
    columns = preprocessing.inputs
    embed = Embed(columns, getattr(torch, config.dtype)) if any(c.kind == "embedding" for c in columns) else None
    num_features = sum(column.width for column in columns)
    widths = (embed.width if embed else num_features, *config.hidden, preprocessing.outputs)
    _check_size(widths, rows, embed.num_parameters if embed else 0)
    layers = [*([embed] if embed else []), *_layers(config, widths)]
    core = nn.Sequential(*layers).to_empty(device=_usable_device(config.device))
    num_targets = len(preprocessing.targets)
    return Network(core, _no_units((num_features,)), _no_units((num_targets,) if num_targets > 1 else ()))


def _no_units(shape: tuple[int, ...]) -> Units:
    return Units(torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64))


def units(values: Tensor) -> Units:
    """Compute mean and standard deviation over rows; a constant column gets the scale 1.

    >>> units(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    Units(mean=tensor([2., 5.]), scale=tensor([1., 1.]))
    """
    mean = values.mean(0)
    scale = (values - mean).square().mean(0).sqrt()
    constant = scale <= 1e-12 * values.abs().amax(0)  # only rounding errors
    return Units(mean, torch.where(constant, torch.ones_like(scale), scale))


def _layers(config: FitConfig, widths: tuple[int, ...]) -> list[nn.Module]:
    *hidden, last = itertools.pairwise(widths)
    layers: list[nn.Module] = []
    for fan_in, fan_out in hidden:
        layers += [_linear(config, fan_in, fan_out), _ACTIVATIONS[config.activation]()]
    if config.preset == "article":
        del layers[1]  # the article's first layer is linear
    return [*layers, _linear(config, *last)]


def _linear(config: FitConfig, fan_in: int, fan_out: int) -> nn.Linear:
    # On the meta device the constructor does not draw from the global generator.
    return nn.Linear(fan_in, fan_out, device="meta", dtype=getattr(torch, config.dtype))


def _check_size(widths: tuple[int, ...], rows: int, in_tables: int) -> None:
    count = in_tables + sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(widths))
    if count > MAX_PARAMETERS:
        raise InputError(f"--hidden: the network would have {count} parameters; at most {MAX_PARAMETERS} are allowed")
    if sum(widths) * rows > MAX_VALUES:
        raise InputError(
            f"--hidden, --train-points: {rows} points times {sum(widths)} units are too many for one step; "
            f"at most {MAX_VALUES} are allowed"
        )


def _usable_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        if torch.zeros((), device=device).is_meta:
            raise InputError("--device: 'meta' holds no numbers; wanted cpu, cuda or a similar device")
    except InputError:
        raise
    except Exception as error:  # each backend of torch raises errors of its own kind where it is missing
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"--device: {name[:40]!r} cannot be used here: {reason[:200]}") from None
    return device
