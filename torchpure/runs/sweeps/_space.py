"""The space of a sweep: what `--vary` says, and the points chosen from it."""

import difflib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch

from torchpure import random
from torchpure.errors import InputError

Value = float | int | str
Kind = Literal["number", "integer", "text"]
Sampler = Literal["grid", "random", "optuna"]
MAX_MEMBERS = 100_000
_FORMS = "NAME=LOW:HIGH[:log|:linear]:N, NAME=A:B (integers, without B) or NAME=A|B|C"


class Option(NamedTuple):
    """An option of `torchpure fit` that a sweep can vary."""

    kind: Kind
    batched: bool  # members with different values run in one program; other options make a program for each value


OPTIONS = {
    "learning_rate": Option("number", batched=True),
    "weight_decay": Option("number", batched=True),
    "seed": Option("integer", batched=True),
    "hidden": Option("text", batched=False),
    "activation": Option("text", batched=False),
    "optimizer": Option("text", batched=False),
    "schedule": Option("text", batched=False),
    "steps": Option("integer", batched=False),
    "loss": Option("text", batched=False),
    "dtype": Option("text", batched=False),
    "column": Option("text", batched=False),  # the target column of a file
    "inputs": Option("text", batched=False),
    "batch_size": Option("integer", batched=False),
    "train_points": Option("integer", batched=False),
    "test_points": Option("integer", batched=False),
}
_ALIASES = {"target": "column", "lr": "learning_rate"}


class Axis(NamedTuple):
    """The values of one option: a list, or for samplers a range of numbers."""

    name: str
    values: tuple[Value, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False

    def at(self, fraction: float) -> Value:
        """Return the value at a fraction in [0, 1)."""
        if self.values:
            return self.values[min(int(fraction * len(self.values)), len(self.values) - 1)]
        if self.log:
            return math.exp(math.log(self.low) + fraction * (math.log(self.high) - math.log(self.low)))
        return self.low + fraction * (self.high - self.low)

    def is_number(self) -> bool:
        """Return whether the option is a number."""
        return OPTIONS[self.name].kind != "text"

    def __str__(self) -> str:
        if self.values:
            return f"{self.name}={'|'.join(map(str, self.values))}"
        return f"{self.name}={self.low!r}:{self.high!r}:{'log' if self.log else 'linear'}"


def parse_axes(texts: Iterable[str], sampler: Sampler) -> list[Axis]:
    """Parse the texts of `--vary`.

    Raises:
        InputError: an option is unknown or given twice, or its values are invalid.
    """
    axes: dict[str, Axis] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        option = option_name(name, text)
        if not equals or not values.strip():
            raise InputError(f"--vary: wanted {_FORMS}, got {text[:80]!r}")
        if option in axes:
            raise InputError(f"--vary: {option} is given twice")
        axes[option] = _parse(option, values.strip(), text, sampler)
    return _checked([*axes.values()])


def read_axes(space: Mapping[str, str | Iterable[Any]] | Iterable[str], sampler: Sampler) -> list[Axis]:
    """Take the values of a space by name: a text in the form of `--vary`, or a list; or take texts with names.

    Raises:
        InputError: see `parse_axes`.
    """
    if sampler not in ("grid", "random", "optuna"):
        raise InputError(f"--sampler: wanted grid, random or optuna, got {str(sampler)[:40]!r}")
    if not isinstance(space, Mapping):
        return parse_axes(space, sampler)
    axes: list[Axis] = []
    for name, values in space.items():
        if isinstance(values, str):
            axes += parse_axes([f"{name}={values}"], sampler)
        else:
            option = option_name(name, name)
            if option in (axis.name for axis in axes):
                raise InputError(f"--vary: {option} is given twice")
            axes.append(Axis(option, tuple(_plain(option, value) for value in values)))
            if not axes[-1].values:
                raise InputError(f"--vary: {option} has no values")
    return _checked(axes)


def list_points(axes: Sequence[Axis], sampler: Sampler, trials: int | None, seed: int) -> list[dict[str, Value]]:
    """List the points of a grid, or draw `trials` points from a key.

    Raises:
        InputError: there are too many points, or the number of trials does not fit the sampler.
    """
    if sampler == "grid":
        if trials is not None:
            raise InputError("--trials: a grid takes all points; it is for --sampler random and optuna")
        count = math.prod(len(axis.values) for axis in axes)
        _check_count("--vary", count)
        return [
            dict(zip((axis.name for axis in axes), row, strict=True))
            for row in itertools.product(*(axis.values for axis in axes))
        ]
    count = check_trials(trials, sampler)
    fractions = random.uniform(random.key(seed), (count, len(axes)), dtype=torch.float64).tolist()
    return [{axis.name: axis.at(value) for axis, value in zip(axes, row, strict=True)} for row in fractions]


def check_trials(trials: int | None, sampler: Sampler) -> int:
    """Return the number of trials.

    Raises:
        InputError: it is missing, or out of range.
    """
    if trials is None or trials < 1:
        raise InputError(f"--trials: --sampler {sampler} wants a number of at least 1, got {trials}")
    _check_count("--trials", trials)
    return trials


def option_name(name: str, text: str) -> str:
    """Return the name of an option, written with hyphens or underscores.

    Raises:
        InputError: a sweep cannot vary it; the nearest name is suggested.
    """
    clean = name.strip().lstrip("-").replace("-", "_")
    clean = _ALIASES.get(clean, clean)
    if clean in OPTIONS:
        return clean
    near = difflib.get_close_matches(clean[:80], OPTIONS, n=1)
    guess = f"; did you mean `{near[0]}`?" if near else f"; wanted one of {', '.join(OPTIONS)}"
    raise InputError(f"--vary: unknown option {clean[:40]!r} in {text[:80]!r}{guess}")


def _checked(axes: list[Axis]) -> list[Axis]:
    if not axes:
        raise InputError(f"--vary: a sweep wants at least one option to vary: {_FORMS}")
    return axes


def _check_count(option: str, count: int) -> None:
    if count > MAX_MEMBERS:
        raise InputError(f"{option}: {count} members are too many; at most {MAX_MEMBERS} are allowed")


def _parse(name: str, values: str, text: str, sampler: Sampler) -> Axis:
    kind = OPTIONS[name].kind
    if kind == "text" or "|" in values or ":" not in values:
        return Axis(name, tuple(_value(kind, part, text) for part in values.split("|")))
    parts = values.split(":")
    scale = next((part.strip() for part in parts[2:] if part.strip() in ("log", "linear")), "linear")
    numbers = [part for part in parts if part.strip() not in ("log", "linear")]
    scales = len(parts) - len(numbers)
    if len(numbers) not in (2, 3) or scales > 1 or (scales and parts[2].strip() != scale):
        raise InputError(f"--vary: wanted {_FORMS}, got {text[:80]!r}")
    low, high = (float(_value("number", part, text)) for part in numbers[:2])
    if not low < high or (scale == "log" and low <= 0):
        wanted = "two positive bounds, the lower one first" if scale == "log" else "the lower bound first"
        raise InputError(f"--vary: wanted {wanted}, got {text[:80]!r}")
    if len(numbers) == 3:
        count = int(_value("integer", numbers[2], text))
        return Axis(name, _spaced(kind, low, high, scale == "log", count, text))
    if kind == "integer" and not scales:
        return _integers(name, numbers, text)
    if sampler == "grid" or kind == "integer":
        what = "a grid wants" if sampler == "grid" else f"{name} wants"
        raise InputError(f"--vary: {what} the number of values, as in {name}={values}:8, got {text[:80]!r}")
    return Axis(name, (), low, high, scale == "log")


def _integers(name: str, bounds: Sequence[str], text: str) -> Axis:
    low, high = (int(_value("integer", part, text)) for part in bounds)
    _check_count("--vary", high - low)
    return Axis(name, tuple(range(low, high)))


def _spaced(kind: Kind, low: float, high: float, log: bool, count: int, text: str) -> tuple[Value, ...]:
    if not 2 <= count <= MAX_MEMBERS:
        raise InputError(f"--vary: wanted 2 to {MAX_MEMBERS} values, got {count} in {text[:80]!r}")
    axis = Axis("learning_rate", (), low, high, log)
    inner = (axis.at(i / (count - 1)) for i in range(1, count - 1))
    values = [low, *(float(f"{value:.12g}") for value in inner), high]  # 0.01, not 0.010000000000000004
    if kind == "number":
        return tuple(values)
    whole = tuple(round(float(value)) for value in values)
    if len({*whole}) < count:
        raise InputError(f"--vary: there are not {count} different integers in {text[:80]!r}")
    return whole


def _value(kind: Kind, part: str, text: str) -> Value:
    part = part.strip()
    try:
        value = {"number": float, "integer": int, "text": str}[kind](part)
    except ValueError:
        raise InputError(f"--vary: wanted {_article(kind)} for {part[:40]!r} in {text[:80]!r}") from None
    if not part or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"--vary: wanted {_article(kind)} for {part[:40]!r} in {text[:80]!r}")
    return value


def _article(kind: Kind) -> str:
    return {"number": "a finite number", "integer": "an integer", "text": "a value"}[kind]


def _plain(name: str, value: Any) -> Value:
    """Convert a value of a list to a number or a text."""
    if isinstance(value, tuple | list):  # widths, columns
        return ",".join(map(str, value))
    return _value(OPTIONS[name].kind, str(value), f"{name}={value}")
