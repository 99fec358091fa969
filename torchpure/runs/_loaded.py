"""A saved run as an object: its model, configuration, metrics and status."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from torch import Tensor, nn

from torchpure import random
from torchpure.data import Preprocessing, encode, is_data, is_table, list_files, plain_numbers, table_of
from torchpure.errors import InputError

from .fits import Data, FitConfig, Network, blank, load
from .saved import (
    Description,
    is_sweep,
    open_folder,
    read_description,
    read_metrics,
    read_parameters,
    read_seconds,
)

MAX_NAMES = 10_000
UNFINISHED = "unfinished"  # the run goes on, or was killed


@dataclass(frozen=True, repr=False)
class SavedRun:
    """What a run's folder says, without its parameters."""

    directory: Path
    config: FitConfig
    description: Description  # versions, command and data
    metrics: Mapping[str, np.ndarray]  # `step` and `loss`, and what else the run noted; NaN where a step has none
    result: Mapping[str, Any] | None  # status, losses, seconds; None: the run has not ended

    @property
    def status(self) -> str:
        """done, diverged, interrupted, terminated or unfinished."""
        return UNFINISHED if self.result is None else self.result["status"]

    @property
    def sources(self) -> list[Path]:
        """The run's folder, and its data files if it has some: an output must not replace them."""
        return [self.directory, *data_files(self.config.target)]

    @property
    def preprocessing(self) -> Preprocessing:
        """How the columns of a file become features, and predictions the user's values."""
        data = self.description.data
        return data.preprocessing or plain_numbers(data.inputs, [self.config.column or "y"])

    def __repr__(self) -> str:
        """Show at most twelve lines."""
        return "\n".join([f"{type(self).__name__}({self.directory})", *self._lines()])

    def _lines(self) -> list[str]:
        config, result = self.config, self.result or {}
        losses = ", ".join(f"{name} {result[f'{name}_loss']:.3e}" for name in ("train", "test") if self.result)
        shown = [name for name in self.metrics if name != "step"]
        return [
            f"  target: {_short(' '.join(filter(None, (config.target, config.column))))}",
            f"  inputs: {_short(', '.join(self.description.data.inputs))}",
            f"  network: {_short(','.join(map(str, config.hidden)))} {config.activation}",
            f"  status: {self.status}, {result.get('steps', len(self.metrics['step'])):.0f} of {config.steps} steps",
            f"  losses: {losses or 'not known yet'}",
            f"  metrics: {_short(', '.join(shown) or 'none')}",
        ]


@dataclass(frozen=True, repr=False)
class LoadedRun(SavedRun):
    """A saved run with its model."""

    model: nn.Module  # (rows, features) -> (rows,), or (rows, targets or classes): float64 in the user's units

    def encode(self, columns: Any) -> Tensor:
        """Return the features of new rows for `model`, float64, (rows, features): `run.model(run.encode(rows))`.

        `columns` is a table of pandas, Polars, DuckDB or pyarrow, or a dict of lists by name. Text and dates are taken
        by the rules of the run. Columns that are no inputs are passed over.

        Raises:
            InputError: a column is missing, or a value cannot be used.

        >>> tp.load_run("runs/houses-price").encode({"city": ["Oslo"], "area": [80.0]})  # doctest: +SKIP
        tensor([[1., 0., 80.]], dtype=torch.float64)
        """
        return encode(self.preprocessing.inputs, table_of(columns, [one.name for one in self.preprocessing.inputs]))


def data_files(target: str) -> list[Path]:
    """Return the data files of a target that are still there; none of an expression."""
    path = Path(target)
    return [*list_files(path)] if is_table(target) and is_data(path) else []


def read_run(run: str | Path) -> SavedRun:
    """Read the folder of a run without its parameters, which a run that goes on may not have yet.

    Raises:
        InputError: the folder or one of its files is missing, damaged or not what `torchpure fit` writes.

    ::

        read_run("runs/2-sin-x").config.steps
    """
    folder = open_folder(Path(run))
    _check_one_run(folder)
    description = read_description(folder)
    rules = description.data.preprocessing
    if rules is not None and tuple(column.name for column in rules.inputs) != description.data.inputs:
        raise InputError(f"{folder / 'config.json'}: `data.inputs` and `data.preprocessing` have different columns")
    metrics = read_metrics(folder)
    result = metrics.result and {**metrics.result, **read_seconds(folder)}
    return SavedRun(folder, _config(folder, description), description, metrics.columns, result)


def _check_one_run(folder: Path) -> None:
    """Say what to name instead of a sweep, or of a folder with runs."""
    if is_sweep(folder):
        has_best = (folder / "best").is_dir()
        raise InputError(
            f"{folder}: is a sweep; its best run is " + (f"`{folder / 'best'}`" if has_best else "not known")
        )
    if not os.path.lexists(folder / "config.json"):
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry, _ in zip(entries, range(MAX_NAMES), strict=False))
        found = [name for name in names if (folder / name / "config.json").is_file()]
        if found:
            raise InputError(f"{folder}: is a folder of runs; name one, such as `{folder / found[0]}`")


def load_run(run: str | Path) -> LoadedRun:
    """Load a run that `torchpure fit` has saved.

    Files are read as data from a stranger: no link is followed, sizes are bounded, and nothing is executed.
    Law: load_run(run).model(x) has the bits that the model had at the end of the run, on the same processor.

    Raises:
        InputError: the folder or one of its files is missing, damaged or not what `torchpure fit` writes.

    >>> import torchpure as tp
    >>> tp.load_run("runs/2-sin-x-2-pi").model(torch.zeros(5, 1))  # doctest: +SKIP
    tensor([...], dtype=torch.float64)
    """
    return with_model(read_run(run))


def with_model(saved: SavedRun) -> LoadedRun:
    """Add the model to a run that was read.

    Raises:
        InputError: the parameters are missing, damaged or not those of the configuration.
    """
    network = _empty_network(saved)
    network.load_state_dict(read_parameters(saved.directory, network.state_dict()))
    network.requires_grad_(False).eval()
    return LoadedRun(saved.directory, saved.config, saved.description, saved.metrics, saved.result, network)


def load_data(saved: SavedRun) -> Data:
    """Draw or read the points of a run again.

    Raises:
        InputError: the data file is missing, or has changed since the run.
    """
    data = load(saved.config, random.split(random.key(saved.config.seed))[0])
    described = saved.description.data
    if data.sha256 != described.sha256 or data.inputs != described.inputs:
        raise InputError(f"{saved.config.target}: has changed since the run {saved.directory}")
    return data


def _config(folder: Path, description: Description) -> FitConfig:
    try:
        return FitConfig.model_validate(description.config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, ("config", *first["loc"])))[:100]
        raise InputError(
            f"{folder / 'config.json'}: `{place}`: {first['msg'][:200].lower()}; "
            f"the run was written by torchpure {description.torchpure[:40]}"
        ) from None


def _empty_network(saved: SavedRun) -> Network:
    """Build the network of a run; the numbers of its parameters and of its units come from the file."""
    try:
        return blank(saved.config.model_copy(update={"device": "cpu"}), saved.preprocessing)
    except InputError as error:
        raise InputError(f"{saved.directory / 'config.json'}: {error}") from None


def _short(text: str) -> str:
    clean = "".join(character if character.isprintable() else "?" for character in text[:80])
    return clean if len(text) <= 80 else f"{clean[:77]}..."
