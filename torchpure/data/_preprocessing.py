"""Apply the rules of columns to a table: the features of its rows, and its targets."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from torchpure.errors import InputError

from ._columns import Column
from ._table import Table
from ._values import days, missing, numbers, refuse, words

WAY_OUT = "; fill it in or leave its row out, or fit again with --missing mean, which takes missing values"
_PERIODS = (365.2425, 7.0, 1.0)  # days in a year, a week and a day


class Preprocessing(BaseModel):
    """The rules of all columns of a run, saved as JSON with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: Annotated[tuple[Column, ...], Field(min_length=1)]
    targets: Annotated[tuple[Column, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_kinds_that_fit(self) -> Preprocessing:
        kinds = {column.kind for column in self.targets}
        if any(column.kind == "classes" for column in self.inputs) or not kinds <= {"number", "days", "classes"}:
            raise ValueError("classes are targets, and targets are numbers, days or classes")
        if "classes" in kinds and len(self.targets) > 1:
            raise ValueError("a target of classes has no other beside it")
        return self

    @property
    def classes(self) -> tuple[str | None, ...]:
        """Return the classes of the target; none if the targets are numbers."""
        return self.targets[0].categories if self.targets[0].kind == "classes" else ()

    @property
    def outputs(self) -> int:
        """Return the width of the network's last layer."""
        return len(self.classes) or len(self.targets)


def plain_numbers(inputs: Sequence[str], targets: Sequence[str]) -> Preprocessing:
    """Return the rules of columns that are all numbers.

    >>> plain_numbers(["x"], ["y"]).outputs
    1
    """
    return Preprocessing(
        inputs=tuple(Column(name=name, kind="number") for name in inputs),
        targets=tuple(Column(name=name, kind="number") for name in targets),
    )


def encode(columns: Sequence[Column], table: Table) -> Tensor:
    """Return the features of all rows, float64, (rows, features).

    Law: `encode(columns, table)` depends on nothing but its arguments, each row on that row alone.

    Raises:
        InputError: a value is missing, unseen or of another kind, and the rule of its column refuses that.
    """
    features = torch.empty(table.arrow.num_rows, sum(column.width for column in columns), dtype=torch.float64)
    start = 0
    for column in columns:
        features[:, start : start + column.width] = _encode_column(column, table)
        start += column.width
    return features


def encode_targets(targets: Sequence[Column], table: Table) -> Tensor:
    """Return the targets: (rows,) for one, (rows, targets) for several; class indices are int64.

    Raises:
        InputError: a value is missing or of another kind.
    """
    if targets[0].kind == "classes":
        return _codes(targets[0], table) - 1
    values = encode(targets, table)
    return values.squeeze(1) if len(targets) == 1 else values


def standardised(columns: Sequence[Column]) -> Tensor:
    """Return which features are standardised, bool, (features,); flags and indices are not."""
    flags = [flag for column in columns for flag in _standardised(column)]
    return torch.tensor(flags, dtype=torch.bool)


def _standardised(column: Column) -> list[bool]:
    main = column.width - column.indicator
    return [column.kind in ("number", "days", "calendar")] * main + [False] * column.indicator


def _encode_column(column: Column, table: Table) -> Tensor:
    if column.kind in ("one-hot", "embedding"):
        codes = _codes(column, table)
        if column.kind == "embedding":
            return codes.unsqueeze(1).to(torch.float64)
        return (codes.unsqueeze(1) == torch.arange(1, len(column.categories) + 1)).to(torch.float64)
    values = numbers(table, column.name) if column.kind == "number" else days(table, column.name)
    absent = values.isnan()
    if absent.any():
        if column.fill is None:
            refuse(table, column.name, int(absent.nonzero()[0]), WAY_OUT, date=column.kind != "number")
        values = torch.where(absent, torch.full_like(values, column.fill), values)
    parts = [values - column.origin, *(_calendar(values) if column.kind == "calendar" else [])]
    return torch.stack([*parts, absent.to(torch.float64)] if column.indicator else parts, dim=1)


def _calendar(values: Tensor) -> list[Tensor]:
    angles = [2 * math.pi * torch.remainder(values / period, 1.0) for period in _PERIODS]
    return [part for angle in angles for part in (angle.sin(), angle.cos())]


def _codes(column: Column, table: Table) -> Tensor:
    """Return the number of each row's category, from 1; 0 for one that training did not have."""
    found = words(table, column.name)
    numbers_of: dict[str | None, int] = {name: number for number, name in enumerate(column.categories, start=1)}
    lookup = torch.tensor([*(numbers_of.get(name, 0) for name in found.names), numbers_of.get(None, 0)])
    codes = lookup[found.codes]  # -1, a missing value, takes the last one
    if None not in numbers_of and (absent := missing(table, column.name)).any():
        refuse(table, column.name, int(absent.nonzero()[0]), WAY_OUT)
    unseen = (codes == 0).nonzero()
    if len(unseen) and column.unseen == "error":
        place, text = table.place(int(unseen[0]), column.name)
        known = [name for name in column.categories if name is not None]
        close = difflib.get_close_matches(text, known[:1000], n=1)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        raise InputError(
            f"{table.path}: column `{column.name}`, {place}: wanted a category of the training data, "
            f"got {text[:40]!r}{guess}; --unseen average allows others"
        )
    return codes
