"""The losses of members on samples, in the units of the target, computed some rows at a time."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import model
from torchpure._types import Params
from torchpure.runs.fits import FitConfig, Network, Sample, loss_in_units
from torchpure.transforms import vmap

MAX_VALUES = 2**24  # of the layers of all members, for the rows that are computed at once


class Units(NamedTuple):
    """How the points of each seed are standardised, stacked over seeds."""

    input_mean: Tensor
    input_scale: Tensor
    target_mean: Tensor
    target_scale: Tensor


def encode(values: Tensor, mean: Tensor, scale: Tensor, config: FitConfig) -> Tensor:
    """Standardise values that are stacked over members; classes stay as they are."""
    if not values.is_floating_point():
        return values
    return ((values - mean.unsqueeze(1)) / scale.unsqueeze(1)).to(getattr(torch, config.dtype))


class Measure(NamedTuple):
    """How good members are."""

    network: Network
    loss: str  # its name
    config: FitConfig
    units: Units

    @torch.no_grad()
    def losses(self, params: Params, samples: Sequence[Sample], seeds: Tensor) -> Tensor:
        """Return the loss of each member on the sample of its seed, float64, (members,).

        `params` are stacked over members, `samples` are those of all seeds, `seeds` are the members' places in them.
        """
        count, places = len(samples[0].y), seeds if len(samples) > 1 else torch.zeros(1, dtype=torch.int64)
        device = next(self.network.parameters()).device
        of_members = [part[seeds].to(device) for part in self.units]
        dim = 0 if len(samples) > 1 else None
        loss = vmap(_loss_of_member(self.network, self.loss), in_dims=(0, dim, dim, 0, 0))
        total = torch.zeros(len(seeds), dtype=torch.float64, device=device)
        for rows in torch.arange(count).split(self._rows_at_once(len(seeds), samples[0].x.shape[-1])):
            x, y = (
                torch.stack([getattr(samples[place], field)[rows] for place in places.tolist()]).to(device)
                for field in ("x", "y")
            )
            mean, scale = (part[places].to(device) for part in self.units[:2])
            x = encode(x, mean, scale, self.config)
            x, y = (x, y) if len(samples) > 1 else (x[0], y[0])
            part = loss(params, x, y, *of_members[2:])
            total = total + part * (len(rows) / count)  # each loss is a mean over rows
        return total

    def _rows_at_once(self, members: int, features: int) -> int:
        return max(1, MAX_VALUES // (members * (sum(self.config.hidden) + features + 1)))


def _loss_of_member(network: Network, name: str) -> Callable[..., Tensor]:
    net = model.functional(network.core)

    def loss(params: Params, x: Tensor, y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        output = net(params, x)
        output = output.squeeze(-1) if output.shape[-1] == 1 else output
        return loss_in_units(name, output.double() * scale + mean, y, scale)

    return loss
