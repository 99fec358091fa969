"""Training and test points: random points of an expression, or rows of a file."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import random
from torchpure._types import Key
from torchpure.data import LARGEST, Domain, compile_expression, is_table, parse_domain, read_table
from torchpure.errors import InputError
from torchpure.transforms import vmap

from ._config import FitConfig

TEST_SHARE = 0.2
MAX_ROWS_AT_ONCE = 2**15  # an expression keeps up to one intermediate result for each level of its depth


class Sample(NamedTuple):
    """Inputs and targets in the units of the user."""

    x: Tensor  # float64, (rows, inputs)
    y: Tensor  # float64, (rows,)


class Data(NamedTuple):
    """The training and test points of a run."""

    inputs: tuple[str, ...]
    train: Sample
    test: Sample
    truth: Callable[[Tensor], Tensor] | None  # (rows, inputs) -> (rows,) for an expression
    bounds: list[tuple[float, float]]  # of each input
    sha256: str | None  # the hash of a file


def load(config: FitConfig, key: Key) -> Data:
    """Draw or read the points of a configuration.

    Raises:
        InputError: the expression, the domain or the file is invalid.
    """
    return load_many(config, key[None])[0]


def load_many(config: FitConfig, keys: Tensor) -> list[Data]:
    """Draw or read the points of a configuration for each key, (keys, 2).

    Raises:
        InputError: the expression, the domain or the file is invalid.
    """
    return _from_file(config, keys) if is_table(config.target) else _from_expression(config, keys)


def _from_expression(config: FitConfig, keys: Tensor) -> list[Data]:
    assert config.domain is not None and config.train_points is not None and config.test_points is not None
    domain = parse_domain(config.domain)
    truth = compile_truth(config.target, domain)
    bounds = list(domain.values())
    low, high = torch.tensor(bounds, dtype=torch.float64).unbind(1)
    shape = (config.train_points + config.test_points, len(domain))
    x = low + (high - low) * vmap(lambda key: random.uniform(key, shape, dtype=torch.float64))(keys)
    y = truth(x.flatten(0, 1))
    _check_values(config.target, domain, x.flatten(0, 1), y)
    samples = [
        _split(x, y, config.train_points, config.test_points) for x, y in zip(x, y.view(x.shape[:2]), strict=True)
    ]
    return [Data(tuple(domain), train, test, truth, bounds, None) for train, test in samples]


def compile_truth(source: str, domain: Domain) -> Callable[[Tensor], Tensor]:
    """Compile an expression to a function (rows, inputs) -> (rows,).

    Raises:
        InputError: the expression is not allowed, or uses names that the domain does not have.
    """
    evaluate = compile_expression(source, list(domain))

    def chunk(x: Tensor) -> Tensor:
        points: Mapping[str, Tensor] = dict(zip(domain, x.unbind(1), strict=True))
        return evaluate(points).expand(len(x)).clone()

    return lambda x: torch.cat([chunk(rows) for rows in x.split(MAX_ROWS_AT_ONCE)])


def _check_values(source: str, domain: Domain, x: Tensor, y: Tensor) -> None:
    bad = ~(y.abs() <= LARGEST)
    if bad.any():
        row = int(bad.nonzero()[0])
        at = ", ".join(f"{name} = {value:.6g}" for name, value in zip(domain, x[row].tolist(), strict=True))
        what = "not finite" if not y[row].isfinite() else f"larger than {LARGEST:g}"
        raise InputError(f"TARGET: `{source[:80]}` is {what} ({y[row]:g}) at {at}; choose another --domain")


def _from_file(config: FitConfig, keys: Tensor) -> list[Data]:
    path = Path(config.target)
    table = read_table(path, config.column, config.inputs)
    rows = len(table.y)
    num_train, num_test = _split_sizes(rows, config.train_points, config.test_points)
    bounds = list(zip(table.x.amin(0).tolist(), table.x.amax(0).tolist(), strict=True))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    orders = [random.permutation(key, rows) for key in keys]
    samples = [_split(table.x[order], table.y[order], num_train, num_test) for order in orders]
    return [Data(table.inputs, train, test, None, bounds, digest) for train, test in samples]


def _split_sizes(rows: int, num_train: int | None, num_test: int | None) -> tuple[int, int]:
    if num_train is None:
        num_test = num_test or max(1, round(TEST_SHARE * rows))
        num_train = rows - num_test
    num_test = num_test or rows - num_train
    if num_train < 1 or num_test < 1 or num_train + num_test > rows:
        raise InputError(
            f"--train-points, --test-points: the file has {rows} rows; wanted at least one to train and one to test"
        )
    return num_train, num_test


def _split(x: Tensor, y: Tensor, num_train: int, num_test: int) -> tuple[Sample, Sample]:
    stop = num_train + num_test
    return Sample(x[:num_train], y[:num_train]), Sample(x[num_train:stop], y[num_train:stop])
