"""The members of a sweep: groups that run as one program, their tensors, and their results."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import model, random, tree
from torchpure._types import Key, Params
from torchpure.runs.fits import (
    Data,
    FitConfig,
    Network,
    Sample,
    build,
    is_streamed,
    load_many,
    loss_name,
    order_key,
    standardisation,
    unit_of,
)
from torchpure.transforms import vmap

from ._batches import Batches
from ._group import Group, Position, Validate, chunk_width
from ._measure import Measure, Units, encode
from ._recipe import make_recipe, make_task
from ._results import Row
from ._space import OPTIONS
from ._streamed import StreamedBatches
from ._train import Inputs, Programs, State, start_state

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
    measure: Measure
    group: Group
    start: State


class Outcome(NamedTuple):
    """The results of a group."""

    rows: list[Row]
    params: Params  # stacked over members


def split_groups(members: Iterable[Member], *, by_seed: bool = True) -> list[list[Member]]:
    """Group the members that differ only in batched options.

    Those whose files are read in blocks are also split by their seeds, because each seed has its own sample and order;
    not without `by_seed`.
    """
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(_static(member.config), []).append(member)
    return [part for group in groups.values() for part in (_by_seed(group) if by_seed else [group])]


def _by_seed(group: list[Member]) -> list[list[Member]]:
    if len({member.config.seed for member in group}) == 1 or not is_streamed(group[0].config):
        return [group]
    seeds: dict[int, list[Member]] = {}
    for member in group:
        seeds.setdefault(member.config.seed, []).append(member)
    return [*seeds.values()]


def _static(config: FitConfig) -> str:
    return config.model_dump_json(exclude={*_BATCHED})


def group_label(members: Sequence[Member]) -> str:
    """Name what the members of a group share, among the options that vary."""
    return ", ".join(f"{name}={value}" for name, value in members[0].point.items() if name not in _BATCHED)


def prepare(members: Sequence[Member], patience: int | None, known: dict[Hashable, Programs]) -> list[Prepared]:
    """Draw or read the points of a group, and draw the initial values; `known` programs are used and extended.

    The group is split where the training rows of different seeds have different categories.

    Raises:
        InputError: the target, a file or the device is invalid, or the network is too large.
    """
    seeds = [*dict.fromkeys(member.config.seed for member in members)]
    keys = torch.stack([random.split(random.key(seed)) for seed in seeds])  # (seeds, 2, 2): of points, of values
    parts: dict[Hashable, dict[int, _Seed]] = {}
    loaded = load_many(members[0].config, keys[:, 0])
    for seed, key, data in zip(seeds, keys[:, 1], loaded, strict=True):
        parts.setdefault(_structure(data), {})[seed] = _Seed(data, key)
    return [
        _prepare([member for member in members if member.config.seed in part], part, patience, known, structure)
        for structure, part in parts.items()
    ]


class _Seed(NamedTuple):
    data: Data
    key: Key  # of the initial values


def _structure(data: Data) -> Hashable:
    """Return what members in one program have in common."""
    columns = [(column.kind, column.width, len(column.categories)) for column in data.preprocessing.inputs]
    return data.train.x.shape, data.train.y.shape, data.preprocessing.outputs, (*columns,)


def _prepare(
    members: list[Member],
    seeds: Mapping[int, _Seed],
    patience: int | None,
    known: dict[Hashable, Programs],
    structure: Hashable,
) -> Prepared:
    config, places = members[0].config, {seed: place for place, seed in enumerate(seeds)}
    data = [seed.data for seed in seeds.values()]
    index = torch.tensor([places[member.config.seed] for member in members])
    network = build(config, data[0].train, data[0].preprocessing)
    device = next(network.parameters()).device
    units = Units(*(torch.stack(part) for part in zip(*(_four(config, points) for points in data), strict=True)))
    keys = torch.stack([seed.key for seed in seeds.values()])
    params, _ = vmap(model.functional(network.core).init)(keys[index])
    params = tree.map(lambda leaf: leaf.detach().to(device), params)
    name = loss_name(config, data[0].preprocessing)
    x, y = (_stack([points.train for points in data], field) for field in ("x", "y"))
    scales = torch.tensor([unit_of(name, scale) for scale in units.target_scale], dtype=torch.float64)
    inputs = Inputs(
        encode(x, units.input_mean, units.input_scale, config).to(device),
        encode(y, units.target_mean, units.target_scale, config).to(device),
        scales[index].to(device),
        *(_column(members, option, device) for option in ("learning_rate", "weight_decay")),
    )
    decays = bool(inputs.weight_decay.any())
    task = make_task(network.core, config, name, patience, decays=decays)
    recipe = make_recipe(network.core, config, name, patience, decays=decays)
    programs = known.setdefault((_static(config), structure, decays), Programs(task, recipe))
    count = sum(value.numel() for value in network.core.parameters())
    rows, widths = x.shape[1], sum(config.hidden) + x.shape[2] + data[0].preprocessing.outputs
    batches = None
    if config.batch_size is not None:
        batches = _batches(config, network, data, keys, index)
        rows = config.batch_size
    measure = Measure(network, name, config, units)
    group = Group(
        programs,
        inputs,
        index,
        rows * count,
        rows * widths + 8 * count,
        batches,
        _validate(measure, data, index),
    )
    return Prepared(members, network, data, measure, group, start_state(programs.task, params, inputs))


def _batches(
    config: FitConfig, network: Network, data: Sequence[Data], keys: Tensor, index: Tensor
) -> Batches | StreamedBatches:
    """Return the minibatches of a group; where files are read in blocks, it has one seed."""
    assert config.batch_size is not None
    stream = data[0].stream
    if stream is None:
        return Batches(vmap(order_key)(keys)[index], len(data[0].train.y), config.batch_size)
    assert len(data) == 1

    def encoded(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return network.encode(x), network.encode_target(y)

    return StreamedBatches(stream, order_key(keys[0]), config.batch_size, config.steps, encoded)


def _validate(measure: Measure, data: Sequence[Data], index: Tensor) -> Validate | None:
    samples = [points.validation for points in data if points.validation is not None]
    if not samples:
        return None
    return lambda params, members: measure.losses(params, samples, index[members])


def _four(config: FitConfig, data: Data) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs, target = standardisation(config, data.train, data.preprocessing)
    return inputs.mean, inputs.scale, target.mean, target.scale


def _stack(samples: Iterable[Sample], field: str) -> Tensor:
    return torch.stack([getattr(sample, field) for sample in samples])


def _column(members: Iterable[Member], name: str, device: torch.device) -> Tensor:
    return torch.tensor([getattr(member.config, name) for member in members], dtype=torch.float64, device=device)


def evaluate(prepared: Prepared, position: Position) -> Outcome:
    """Return a row for each member, with losses in the units of the target, and the parameters."""
    state, count = position.state, len(position.state.steps)
    parts = [
        _measure(prepared, state, chunk) for chunk in torch.arange(count).split(chunk_width(prepared.group, count))
    ]
    params = tree.map(lambda *leaves: torch.cat(leaves), *(part.params for part in parts))
    finite = torch.cat([part.finite for part in parts])
    steps = torch.where(finite | ~state.finite, state.steps, (state.steps - 1).clamp(min=0))
    columns = [column.tolist() for column in (finite & state.finite, state.running, steps)]
    losses = {name: torch.cat([part.losses[name] for part in parts]) for name in parts[0].losses}
    losses["best_loss"] = state.best
    of_members = [dict(zip(losses, row, strict=True)) for row in torch.stack([*losses.values()], 1).tolist()]
    cells = zip(prepared.members, *columns, of_members, strict=True)
    return Outcome([_row(*row) for row in cells], params)


class _Measured(NamedTuple):
    params: Params  # the newest whose loss is finite
    finite: Tensor  # bool: these are the newest of all
    losses: dict[str, Tensor]  # by sample, in the units of the target


@torch.no_grad()
def _measure(prepared: Prepared, state: State, chunk: Tensor) -> _Measured:
    inputs, seeds = prepared.group.inputs, prepared.group.seed_index[chunk]
    device, config = inputs.x.device, prepared.members[0].config
    newest, previous = (tree.map(lambda leaf: leaf[chunk.to(device)], side) for side in (state.params, state.previous))
    of_rows = [v[:, : config.batch_size] for v in inputs[:2]]
    of_rows = [v[0] if len(v) == 1 else v[seeds] for v in of_rows]
    dim = None if len(inputs.x) == 1 else 0
    finite = vmap(prepared.group.task.loss, in_dims=(0, dim, dim))(newest, *of_rows).isfinite()
    params = vmap(lambda f, new, old: tree.map(lambda a, b: torch.where(f, a, b), new, old))(finite, newest, previous)
    losses = {}
    for name in ("train", "validation", "test"):
        samples = [getattr(data, name) for data in prepared.data]
        if samples[0] is not None:
            losses[f"{name}_loss"] = prepared.measure.losses(params, samples, seeds)
    return _Measured(params, finite, losses)


def _row(member: Member, finite: bool, running: bool, steps: int, losses: Mapping[str, float]) -> Row:
    ended = "done" if steps == member.config.steps else "interrupted" if running else "stopped"
    return {
        "index": member.index,
        **member.point,
        "status": ended if finite else "diverged",
        "steps": steps,
        **{name: value if abs(value) < torch.inf else None for name, value in losses.items()},
    }


def score(row: Row) -> float | None:
    """Return the loss by which members are compared: on the validation points if there are some, else on the test."""
    return row.get("validation_loss", row["test_loss"])


def fill_network(prepared: Prepared, params: Params, place: int) -> tuple[Network, Data]:
    """Return the network and the points of one member of a group."""
    network, row = prepared.network, int(prepared.group.seed_index[place])
    network.core.load_state_dict({name: value[place] for name, value in params.items()})
    for name, part in prepared.measure.units._asdict().items():
        getattr(network, name).copy_(part[row])
    return network, prepared.data[row]
