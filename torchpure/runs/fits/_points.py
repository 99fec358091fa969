"""Training and test points: random points of an expression, or rows of a file."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import random
from torchpure._types import Key
from torchpure.data import (
    LARGEST,
    Choice,
    Domain,
    Preprocessing,
    Rules,
    Table,
    choose,
    column_names,
    compile_expression,
    complete_rows,
    digest,
    encode,
    encode_targets,
    fit_columns,
    fit_targets,
    is_table,
    memory_needed,
    parse_domain,
    plain_numbers,
    read_table,
)
from torchpure.errors import InputError
from torchpure.transforms import vmap

from ._config import MAX_MEMORY, FitConfig
from ._stream import Stream, sample

TEST_SHARE = 0.2
MAX_BLOCK = 2**21  # rows of a file that are in memory at once
BYTES_PER_VALUE = 96  # measured: the sample, a block, its features and their copies
MAX_ROWS_AT_ONCE = 2**15  # an expression keeps up to one intermediate result for each level of its depth


class Sample(NamedTuple):
    """Inputs and targets in the units of the user."""

    x: Tensor  # float64, (rows, features)
    y: Tensor  # float64, (rows,) or (rows, targets); int64, (rows,) for classes


class Data(NamedTuple):
    """The training and test points of a run."""

    inputs: tuple[str, ...]
    train: Sample
    test: Sample
    truth: Callable[[Tensor], Tensor] | None  # (rows, inputs) -> (rows,) for an expression
    bounds: list[tuple[float, float]]  # of each feature
    sha256: str | None  # the hash of a file
    preprocessing: Preprocessing
    validation: Sample | None = None
    stream: Stream | None = None  # the training rows of a file larger than memory; `train` is a sample of them

    @property
    def train_points(self) -> int:
        """Return the number of training points."""
        return len(self.train.y) if self.stream is None else self.stream.rows


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
    _check_batch_size(config, config.train_points)
    num_validation = _validation_size(config.validation_points, config.train_points)
    sizes = Sizes(config.train_points, num_validation, config.test_points)
    shape = (sum(sizes), len(domain))
    x = low + (high - low) * vmap(lambda key: random.uniform(key, shape, dtype=torch.float64))(keys)
    y = truth(x.flatten(0, 1))
    _check_values(config.target, domain, x.flatten(0, 1), y)
    rules = plain_numbers([*domain], ["y"])
    samples = [_split(*points, sizes) for points in zip(x, y.view(x.shape[:2]), strict=True)]
    return [Data((*domain,), train, test, truth, bounds, None, rules, val) for train, val, test in samples]


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
    choice = choose(path, column_names(path), config.column, config.inputs)
    for name in config.categories or ():
        if name not in choice.inputs:
            raise InputError(
                f"--categories: `{name[:40]}` is no input column; wanted of {', '.join(choice.inputs)[:200]}"
            )
    names = (*choice.inputs, *choice.targets)
    needed = memory_needed(path, len(names))
    if needed > _memory(config):
        return [_from_blocks(config, choice, key, needed) for key in keys]
    table = read_table(path, names)
    if config.missing == "drop":
        rows = complete_rows(table, names)
        table = table._replace(arrow=table.arrow.take(rows.numpy()), rows=rows)
    return [_from_table(config, choice, table, key)[0] for key in keys]


def is_streamed(config: FitConfig) -> bool:
    """Return whether the files of a configuration are read in blocks.

    Raises:
        InputError: they cannot be read.
    """
    if not is_table(config.target):
        return False
    path = Path(config.target)
    choice = choose(path, column_names(path), config.column, config.inputs)
    return memory_needed(path, len((*choice.inputs, *choice.targets))) > _memory(config)


def _memory(config: FitConfig) -> int:
    return config.max_memory or MAX_MEMORY


def _from_table(config: FitConfig, choice: Choice, table: Table, key: Key) -> tuple[Data, Tensor]:
    """Split the rows of a table; return the points, and which rows are not training rows."""
    count, rules = table.arrow.num_rows, _rules(config)
    if count < 2:
        raise InputError(f"{table.path}: {count} rows of data; wanted at least 2, one to train and one to test")
    sizes = _split_sizes(count, config)
    order = random.permutation(key, count)
    training, others = order[: sizes.train], order[sizes.train : sum(sizes)]
    preprocessing = Preprocessing(
        inputs=fit_columns(table, choice.inputs, rules, training),
        targets=fit_targets(table, choice.targets, config.loss, training),
    )
    x, y = encode(preprocessing.inputs, table), encode_targets(preprocessing.targets, table)
    train, validation, test = _split(x[order], y[order], sizes)
    bounds = list(zip(x.amin(0).tolist(), x.amax(0).tolist(), strict=True))
    return Data(choice.inputs, train, test, None, bounds, digest(table.path), preprocessing, validation), others


def _from_blocks(config: FitConfig, choice: Choice, key: Key, needed: int) -> Data:
    """Keep a sample of a file that is larger than memory, and a stream of its other rows."""
    path, assumed = Path(config.target), _memory(config)
    if config.batch_size is None:
        raise InputError(
            f"{path}: needs about {needed} bytes, more than --max-memory {assumed}; --batch-size N reads it in blocks"
        )
    if config.train_points is not None:
        raise InputError("--train-points: a file that is read in blocks, because of --max-memory, is used whole")
    k_sample, k_split = random.split(key)
    names, drop = (*choice.inputs, *choice.targets), config.missing == "drop"
    block = min(max(assumed // (BYTES_PER_VALUE * len(names)), 2 * config.batch_size), MAX_BLOCK)
    sampled = sample(path, choice, k_sample, block, drop=drop)
    data, others = _from_table(config, choice, sampled.table, k_split)
    assert sampled.table.rows is not None
    held_out = sampled.table.rows[others].sort().values
    rows = sampled.rows - len(held_out)
    return data._replace(stream=Stream(path, names, sampled.types, drop, block, rows, held_out, data.preprocessing))


def _rules(config: FitConfig) -> Rules:
    return Rules(
        config.categorical or "auto",
        config.categories or (),
        config.missing or "error",
        config.unseen or "average",
        config.dates or "days",
    )


class Sizes(NamedTuple):
    """The numbers of points."""

    train: int
    validation: int
    test: int


def _split_sizes(rows: int, config: FitConfig) -> Sizes:
    num_train, num_test = config.train_points, config.test_points
    num_validation = _validation_size(config.validation_points, rows)
    if num_train is None:
        num_test = num_test or max(1, round(TEST_SHARE * rows))
        num_train = rows - num_test - num_validation
    num_test = num_test or rows - num_train - num_validation
    if num_train < 1 or num_test < 1 or num_train + num_test + num_validation > rows:
        options = "--train-points, --test-points" + (", --validation-points" if num_validation else "")
        raise InputError(f"{options}: the file has {rows} rows; wanted at least one to train and one to test")
    _check_batch_size(config, num_train)
    return Sizes(num_train, num_validation, num_test)


def _check_batch_size(config: FitConfig, num_train: int) -> None:
    if config.batch_size is not None and config.batch_size > num_train:
        raise InputError(f"--batch-size: wanted at most {num_train}, the training points, got {config.batch_size}")


def _validation_size(wanted: float | None, rows: int) -> int:
    """Return a number of points; a number below 1 is a share of the rows."""
    return 0 if wanted is None else max(1, round(wanted * rows)) if wanted < 1 else int(wanted)


def _split(x: Tensor, y: Tensor, sizes: Sizes) -> tuple[Sample, Sample | None, Sample]:
    first, second, third = itertools.accumulate(sizes)
    validation = Sample(x[first:second], y[first:second]) if sizes.validation else None
    return Sample(x[:first], y[:first]), validation, Sample(x[second:third], y[second:third])
