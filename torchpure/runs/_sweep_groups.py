"""The members of a sweep: groups that run as one program, their tensors, and their results."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import model, random, tree
from torchpure._types import Params
from torchpure.transforms import vmap

from ._config import FitConfig
from ._fit import make_optimizer
from ._network import Network, build, standardisation
from ._points import Data, load_many
from .sweeps import OPTIONS, Group, Inputs, Position, Programs, State, Task, chunk_width, start_state

Row = dict[str, Any]
_BATCHED = {name: None for name, option in OPTIONS.items() if option.batched}


class Member(NamedTuple):
    """One training of a sweep."""

    index: int
    point: dict[str, Any]  # the values that vary
    config: FitConfig


class Prepared(NamedTuple):
    """The tensors of a group."""

    members: list[Member]
    network: Network  # its parameters have no values
    data: list[Data]  # of each seed
    units: list[Tensor]  # mean and scale of the inputs, mean and scale of the target; stacked over seeds
    group: Group
    start: State


class Outcome(NamedTuple):
    """The results of a group."""

    rows: list[Row]
    params: Params  # stacked over members


def split_groups(members: Iterable[Member]) -> list[list[Member]]:
    """Group the members that differ only in batched options."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(_static(member.config), []).append(member)
    return [*groups.values()]


def _static(config: FitConfig) -> str:
    return config.model_dump_json(exclude={*_BATCHED})


def group_label(members: Sequence[Member]) -> str:
    """Name what the members of a group share, among the options that vary."""
    return ", ".join(f"{name}={value}" for name, value in members[0].point.items() if name not in _BATCHED)


def prepare(members: list[Member], patience: int | None, known: dict[Hashable, Programs]) -> Prepared:
    """Draw or read the points of a group, and draw the initial values; `known` programs are used and extended.

    Raises:
        InputError: the target, a file or the device is invalid, or the network is too large.
    """
    config = members[0].config
    seeds = [*dict.fromkeys(member.config.seed for member in members)]
    index = torch.tensor([seeds.index(member.config.seed) for member in members] if len(seeds) > 1 else [0])
    index = index.expand(len(members))
    keys = torch.stack([random.split(random.key(seed)) for seed in seeds])  # (seeds, 2, 2): of points, of values
    data = load_many(config, keys[:, 0])
    network = build(config, data[0].train)
    device = next(network.parameters()).device
    units = [torch.stack(part) for part in zip(*(_four(config, seed) for seed in data), strict=True)]
    params, _ = vmap(model.functional(network.core).init)(keys[index, 1])
    x, y = (torch.stack([getattr(points.train, name) for points in data]) for name in ("x", "y"))
    inputs = Inputs(
        _encode(x, units[0], units[1], config).to(device),
        _encode(y, units[2], units[3], config).to(device),
        units[3][index].square().to(device),
        *(_column(members, name, device) for name in ("learning_rate", "weight_decay")),
    )
    decays = bool(inputs.weight_decay.any())
    programs = known.setdefault((_static(config), decays), Programs(_task(network, config, patience, decays=decays)))
    count = sum(value.numel() for value in network.core.parameters())
    rows, widths = x.shape[1], sum(config.hidden) + x.shape[2] + 1
    group = Group(programs, inputs, index, rows * count, rows * widths + 8 * count)
    params = tree.map(lambda leaf: leaf.detach().to(device), params)
    return Prepared(members, network, data, units, group, start_state(programs.task, params, inputs))


def _task(network: Network, config: FitConfig, patience: int | None, *, decays: bool) -> Task:
    net = model.functional(network.core)

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return (net(params, x).squeeze(-1) - y).square().mean()

    return Task(
        loss, lambda rate, decay: make_optimizer(config, rate, decay if decays else None), config.steps, patience
    )


def _four(config: FitConfig, data: Data) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs, target = standardisation(config, data.train)
    return inputs.mean, inputs.scale, target.mean, target.scale


def _encode(values: Tensor, mean: Tensor, scale: Tensor, config: FitConfig) -> Tensor:
    return ((values - mean.unsqueeze(1)) / scale.unsqueeze(1)).to(getattr(torch, config.dtype))


def _column(members: Iterable[Member], name: str, device: torch.device) -> Tensor:
    return torch.tensor([getattr(member.config, name) for member in members], dtype=torch.float64, device=device)


def evaluate(prepared: Prepared, position: Position) -> Outcome:
    """Return a row for each member, with losses in the units of the target, and the parameters."""
    state = position.state
    width = chunk_width(prepared.group, len(state.steps))
    parts = [_measure(prepared, state, chunk) for chunk in torch.arange(len(state.steps)).split(width)]
    params = tree.map(lambda *leaves: torch.cat(leaves), *(part[0] for part in parts))
    finite, train, test = (torch.cat([part[i] for part in parts]) for i in (1, 2, 3))
    steps = torch.where(finite | ~state.finite, state.steps, (state.steps - 1).clamp(min=0))
    columns = [column.tolist() for column in (finite & state.finite, state.running, steps, train, test, state.best)]
    rows = [_row(member, *cells) for member, *cells in zip(prepared.members, *columns, strict=True)]
    return Outcome(rows, params)


@torch.no_grad()
def _measure(prepared: Prepared, state: State, chunk: Tensor) -> tuple[Params, Tensor, Tensor, Tensor]:
    """Return the newest parameters of some members whose loss is finite, whether they are the newest, and losses."""
    inputs, rows = prepared.group.inputs, prepared.group.seed_index[chunk]
    device = inputs.x.device
    newest, previous = (tree.map(lambda leaf: leaf[chunk.to(device)], side) for side in (state.params, state.previous))
    values = vmap(prepared.group.task.loss)(newest, inputs.x[rows], inputs.y[rows])
    finite = values.isfinite()
    params = vmap(lambda f, new, old: tree.map(lambda a, b: torch.where(f, a, b), new, old))(finite, newest, previous)
    units = [part[rows].to(device) for part in prepared.units]
    losses = []
    for name in ("train", "test"):
        samples = [getattr(prepared.data[row], name) for row in rows.tolist()]
        x = _encode(
            torch.stack([sample.x for sample in samples]).to(device), units[0], units[1], prepared.members[0].config
        )
        y = torch.stack([sample.y for sample in samples]).to(device)
        losses.append(vmap(_squared_error(prepared.network))(params, x, y, *units[2:]))
    train, test = losses
    return params, finite, train, test


def _squared_error(network: Network) -> Callable[..., Tensor]:
    net = model.functional(network.core)

    def error(params: Params, x: Tensor, y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return (net(params, x).squeeze(-1).double() * scale + mean - y).square().mean()

    return error


def _row(
    member: Member, finite: bool, running: bool, steps: int, train_loss: float, test_loss: float, best: float
) -> Row:
    total = member.config.steps
    ended = "done" if steps == total else "interrupted" if running else "stopped"
    losses = {"train_loss": train_loss, "test_loss": test_loss, "best_loss": best}
    return {
        "index": member.index,
        **member.point,
        "status": ended if finite else "diverged",
        "steps": steps,
        **{name: value if abs(value) < torch.inf else None for name, value in losses.items()},
    }


def fill_network(prepared: Prepared, params: Params, place: int) -> tuple[Network, Data]:
    """Return the network and the points of one member of a group."""
    network, row = prepared.network, int(prepared.group.seed_index[place])
    network.core.load_state_dict({name: value[place] for name, value in params.items()})
    names = ("input_mean", "input_scale", "target_mean", "target_scale")
    for name, part in zip(names, prepared.units, strict=True):
        getattr(network, name).copy_(part[row])
    return network, prepared.data[row]
