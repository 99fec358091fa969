"""How each column becomes numbers: rules that are fitted to training rows once, and then are data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, NoReturn

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from torchpure.errors import InputError

from ._table import Table
from ._values import Words, days, kind_of, missing, numbers, refuse, words

MAX_ONE_HOT = 16  # more categories get a learned embedding under "auto"
MAX_CATEGORIES = 100_000
MAX_CLASSES = 1000
_DECIMAL_COMMA = re.compile(r"[-+]?(\d+|\d{1,3}([. '\u00a0\u202f]\d{3})+),\d+([eE][-+]?\d+)?")
Kind = Literal["number", "days", "calendar", "one-hot", "embedding", "classes"]


class Column(BaseModel):
    """The rule of one column.

    `number` and `days` give one feature, `calendar` seven, `one-hot` one for each category, and `embedding` the index
    of a category, from 1; 0 is a category that training did not have. With `fill`, one more feature says where a value
    was missing. `classes` is a target.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    kind: Kind
    origin: float = 0.0  # the mean of the training days, in days since 1970
    fill: float | None = None  # stands for a missing value
    indicator: bool = False
    categories: Annotated[
        tuple[str | None, ...], Field(max_length=MAX_CATEGORIES)
    ] = ()  # sorted; None, at the end, stands for a missing value
    holds: Literal["text", "number", "boolean"] = "text"  # what the categories are in the file
    unseen: Literal["average", "error"] = "average"

    @model_validator(mode="after")
    def _has_categories(self) -> Column:
        wanted = {"one-hot": 1, "embedding": 1, "classes": 2}.get(self.kind, 0)
        if len(self.categories) < wanted:
            raise ValueError(f"{self.kind} needs {wanted} categories or more")
        return self

    @property
    def width(self) -> int:
        """Return the number of features."""
        many = {"calendar": 7, "one-hot": len(self.categories)}
        return many.get(self.kind, 1) + self.indicator

    def describe(self) -> str:
        """Say what the column was taken for.

        >>> Column(name="city", kind="one-hot", categories=("Oslo", "Rome")).describe()
        'text (2 categories)'
        """
        if self.kind in ("number", "days", "calendar"):
            return "number" if self.kind == "number" else "date"
        return f"{self.holds} ({len(self.categories)} {'classes' if self.kind == 'classes' else 'categories'})"


class Rules(NamedTuple):
    """How columns are read."""

    categorical: Literal["auto", "one-hot", "embedding"] = "auto"
    categories: tuple[str, ...] = ()  # columns that are categories whatever they hold
    missing: Literal["error", "drop", "mean"] = "error"
    unseen: Literal["average", "error"] = "average"
    dates: Literal["days", "calendar"] = "days"


def fit_columns(
    table: Table, names: Sequence[str], rules: Rules | None = None, rows: Tensor | None = None
) -> tuple[Column, ...]:
    """Find the rule of each input column from training rows, by default all.

    Numbers and booleans are numbers, text is categories, and dates are days since their mean.

    Raises:
        InputError: a column holds something else, or nothing, or a value is missing and the rules refuse that.
    """
    chosen = rules or Rules()
    return tuple(_fit_column(table, name, chosen, rows) for name in names)


def fit_targets(table: Table, names: Sequence[str], loss: str | None, rows: Tensor | None = None) -> tuple[Column, ...]:
    """Find the rule of each target: numbers, or classes for text and for the loss "cross-entropy".

    Raises:
        InputError: a target has a missing value, or its values do not fit the loss.
    """
    targets = tuple(_fit_target(table, name, loss, rows) for name in names)
    if len(targets) > 1 and any(target.kind == "classes" for target in targets):
        raise InputError(f"--target: wanted one column of classes, or several of numbers, got {', '.join(names)[:200]}")
    return targets


def complete_rows(table: Table, names: Sequence[str]) -> Tensor:
    """Return the indices of the rows in which no value of these columns is missing."""
    absent = torch.zeros(table.arrow.num_rows, dtype=torch.bool)
    for name in names:
        absent |= missing(table, name)
    return (~absent).nonzero().squeeze(1)


def _fit_column(table: Table, name: str, rules: Rules, rows: Tensor | None) -> Column:
    kind, absent = kind_of(table, name), missing(table, name)
    if kind == "nothing" or absent.all():
        raise InputError(f"{table.path}: column `{name}` has no values; --inputs a,b chooses columns")
    if absent.any() and rules.missing == "error":
        refuse(table, name, int(absent.nonzero()[0]), "; --missing drop or mean allows that")
    if kind == "text" or name in rules.categories:
        return _fit_categories(table, name, rules, rows)
    values = days(table, name) if kind == "time" else numbers(table, name)
    training = values if rows is None else values[rows]
    mean = float(training[~training.isnan()].mean().nan_to_num())
    fills = rules.missing == "mean"
    fill, indicator = mean if fills else None, fills and bool(training.isnan().any())
    if kind == "time":
        return Column(name=name, kind=rules.dates, origin=mean, fill=fill, indicator=indicator)
    return Column(name=name, kind="number", fill=fill, indicator=indicator)


def _fit_categories(table: Table, name: str, rules: Rules, rows: Tensor | None) -> Column:
    column = words(table, name)
    if name not in rules.categories:
        _refuse_decimal_commas(table, name, column, f"--categories {name} takes it as text")
    present = _present(column, rows)
    count, total = len(present), len(column.codes) if rows is None else len(rows)
    if name not in rules.categories and count > MAX_ONE_HOT and 2 * count > total:
        _refuse_names(table, name, column, count, total)
    if count > MAX_CATEGORIES:
        raise InputError(f"{table.path}: column `{name}` has {count} categories; at most {MAX_CATEGORIES} are allowed")
    one_hot = rules.categorical == "one-hot" or (rules.categorical == "auto" and count <= MAX_ONE_HOT)
    if one_hot and count > MAX_CLASSES:
        raise InputError(
            f"--categorical: column `{name}` has {count} categories; at most {MAX_CLASSES} for one-hot: use embedding"
        )
    return Column(
        name=name,
        kind="one-hot" if one_hot else "embedding",
        categories=present,
        holds=_holds(table, name),
        unseen=rules.unseen,
    )


def _refuse_names(table: Table, name: str, column: Words, count: int, total: int) -> NoReturn:
    is_text = torch.tensor([not _is_number(text) for text in column.names])
    rows = ((column.codes >= 0) & is_text[column.codes]).nonzero()
    if len(rows):
        place, text = table.place(int(rows[0]), name)
        fault = f", {place}: wanted a number, got {text[:40]!r}"
    else:  # the table is a sample of a larger file
        fault = ": wanted numbers, got text in some rows"
    raise InputError(
        f"{table.path}: column `{name}`{fault}; {count} different texts in {total} rows are names, not categories; "
        f"--inputs a,b chooses columns, --categories {name} takes it"
    )


def _refuse_decimal_commas(table: Table, name: str, column: Words, way_out: str) -> None:
    """Refuse a column of which most texts are numbers with a decimal comma: they would become categories."""
    found = [code for code, text in enumerate(column.names) if _DECIMAL_COMMA.fullmatch(text.strip())]
    if 2 * len(found) > len(column.names):
        place, text = table.place(int((column.codes == found[0]).nonzero()[0]), name)
        raise InputError(
            f"{table.path}: column `{name}`, {place}: wanted a number with a decimal point, got {text[:40]!r}; "
            f"write such numbers with a point; {way_out}"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _fit_target(table: Table, name: str, loss: str | None, rows: Tensor | None) -> Column:
    kind, absent = kind_of(table, name), missing(table, name)
    if absent.any():
        refuse(table, name, int(absent.nonzero()[0]), "; --missing drop leaves such rows out")
    if loss != "cross-entropy" and (kind != "text" or loss is not None):
        if kind == "time":
            values = days(table, name)
            return Column(name=name, kind="days", origin=float((values if rows is None else values[rows]).mean()))
        numbers(table, name)  # checks them
        return Column(name=name, kind="number")
    if kind == "number":
        broken = (numbers(table, name) % 1 != 0).nonzero()
        if len(broken):
            place, text = table.place(int(broken[0]), name)
            raise InputError(f"{table.path}: column `{name}`, {place}: cross-entropy wants classes, got {text[:40]!r}")
    column = words(table, name)
    if loss is None:
        _refuse_decimal_commas(table, name, column, "--loss cross-entropy takes them as classes")
    found = _present(column, None)  # of all rows: a class that only the test has is a class too
    if not 2 <= len(found) <= MAX_CLASSES:
        raise InputError(f"{table.path}: column `{name}` has {len(found)} classes; wanted 2 to {MAX_CLASSES}")
    return Column(name=name, kind="classes", categories=found, holds=_holds(table, name), unseen="error")


def _present(column: Words, rows: Tensor | None) -> tuple[str | None, ...]:
    used = (column.codes if rows is None else column.codes[rows]).unique().tolist()
    found = [column.names[code] for code in used if code >= 0]
    numeric = all(name.lstrip("-").isdigit() for name in found)
    ordered: list[str | None] = sorted(found, key=(lambda name: (int(name), name)) if numeric else None)
    return (*ordered, None) if -1 in used else tuple(ordered)


def _holds(table: Table, name: str) -> Literal["text", "number", "boolean"]:
    kind = kind_of(table, name)
    return "number" if kind == "number" else "boolean" if kind == "boolean" else "text"
