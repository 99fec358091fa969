"""The configuration of a fit: validated once, and saved with the run, so that the run can be repeated."""

import difflib
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from torchpure.data import KINDS, is_table
from torchpure.errors import InputError

MAX_POINTS = 1_000_000
MAX_STEPS = 10_000_000
MAX_WIDTH = 4096
MAX_LAYERS = 16
MAX_MEMORY = 2**32  # bytes

_DEFAULTS: dict[str, Any] = {"hidden": "32,32", "activation": "silu", "optimizer": "adam", "schedule": "cosine"}
# The network and the hyper-parameters of the article "Introduction to functional PyTorch" (2023).
_ARTICLE: dict[str, Any] = {
    "hidden": "5,5",
    "activation": "tanh",
    "optimizer": "adam",
    "schedule": "constant",
    "learning_rate": 1e-2,
}
_PRESETS = {None: _DEFAULTS, "article": _ARTICLE}
_LEARNING_RATES = {"adam": 2e-2, "adamw": 2e-2, "sgd": 1e-1}
_WEIGHT_DECAYS = {"adamw": 1e-2}
_EXPRESSION: dict[str, Any] = {"domain": "x=0:2*pi", "train_points": 40, "test_points": 10}
_FILE: dict[str, Any] = {
    "categorical": "auto",
    "missing": "error",
    "unseen": "average",
    "dates": "days",
    "max_memory": MAX_MEMORY,
}
_ONLY_FILE = ("column", "inputs", "categorical", "categories", "missing", "unseen", "dates", "max_memory")
_OPTIONS = {"column": "--target", "target": "TARGET"}


def _split_at_commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _share(value: Any) -> Any:
    """Return a share, such as 0.2, or a number of points, from text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    return number if not 1 <= number == round(number) else int(number)


def _bytes(value: Any) -> Any:
    """Return a number of bytes from text such as 500M or 4G."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])B?", value.strip().upper()) if isinstance(value, str) else None
    return value if found is None else int(float(found[1]) * 2 ** (10 * " KMGT".index(found[2])))


Names = Annotated[tuple[str, ...] | None, BeforeValidator(_split_at_commas)]
Points = Annotated[int, Field(ge=1, le=MAX_POINTS)]
Share = Annotated[float, Field(gt=0, lt=1)]
Memory = Annotated[int, Field(ge=2**20)]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]


class FitConfig(BaseModel):
    """The options of `torchpure fit`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str  # an expression, or the path of a data file
    column: str | None = None  # the target column of a file, or several with commas between them
    inputs: Names = None  # the input columns of a file
    categorical: Literal["auto", "one-hot", "embedding"] | None = None  # what a category of a file becomes
    categories: Names = None  # the columns of a file that are categories whatever they hold
    missing: Literal["error", "drop", "mean"] | None = None  # what is done with a missing value of a file
    unseen: Literal["average", "error"] | None = None  # what a category becomes that training did not have
    dates: Literal["days", "calendar"] | None = None  # what a date of a file becomes
    domain: str | None = None  # the bounds of an expression's inputs
    train_points: Points | None = None
    test_points: Points | None = None
    validation_points: Annotated[Points | Share | None, BeforeValidator(_share)] = None
    preset: Literal["article"] | None = None
    hidden: Annotated[tuple[Width, ...], BeforeValidator(_split_at_commas), Field(min_length=1, max_length=MAX_LAYERS)]
    activation: Literal["tanh", "relu", "gelu", "silu", "sigmoid"]
    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    schedule: Literal["constant", "cosine"]
    loss: Literal["mse", "mae", "huber", "cross-entropy"] | None = None  # None: by the kind of the target
    max_memory: Annotated[Memory | None, BeforeValidator(_bytes)] = None  # bytes for the points of a file
    batch_size: Points | None = None  # None: all training points
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 500
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    checkpoint_every: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 1000  # steps; 0: at the end only
    threads: Annotated[int, Field(ge=0, le=4096)] = 0  # 0: chosen by the size of the network
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    mesh: Annotated[str, Field(pattern=r"^data=[1-9]\d*$")] | None = None  # processes that share the points

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        """Check a configuration that was read from a file; `configure` fills in what is missing."""
        missing = [] if is_table(self.target) else [name for name in _EXPRESSION if getattr(self, name) is None]
        if missing:
            raise ValueError(f"an expression needs {', '.join(missing)}")
        return self


def configure(options: Mapping[str, Any]) -> FitConfig:
    """Complete the given options (those that are not None) by the preset and the defaults, and validate them.

    Raises:
        InputError: an option is out of range, or does not apply to this kind of TARGET.

    >>> configure({"target": "sin(x)", "hidden": "8"}).hidden
    (8,)
    """
    given = {name: value for name, value in options.items() if value is not None}
    given["target"] = _with_slash(given["target"].strip(), given.get("domain") or _EXPRESSION["domain"])
    _check_kind(given)
    defaults = _PRESETS.get(given.get("preset"), _DEFAULTS)
    kind = _FILE if is_table(given["target"]) else _EXPRESSION
    values = kind | defaults | given
    values.setdefault("learning_rate", _LEARNING_RATES.get(values["optimizer"], math.nan))
    values.setdefault("weight_decay", _WEIGHT_DECAYS.get(values["optimizer"], 0.0))
    try:
        return FitConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(_error_message(error)) from None


def command(config: FitConfig) -> str:
    """Return the command that repeats a run.

    >>> command(configure({"target": "x**2"}))
    "torchpure fit 'x**2' --domain 'x=0:2*pi' --train-points 40 --test-points 10 --hidden 32,32 ..."
    """
    values = config.model_dump(exclude_none=True)
    target = values.pop("target")
    words = ["torchpure", "fit"]
    for name, value in values.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += [_option(name), text]
    return shlex.join([*words[:2], target, *words[2:]])


def _check_kind(given: Mapping[str, Any]) -> None:
    target = given["target"]
    if is_table(target):
        if "domain" in given:
            raise InputError("--domain: only an expression has a domain; a data file has its own points")
        return
    for name in _ONLY_FILE:
        if name in given:
            raise InputError(f"{_option(name)}: only a data file has columns, and {target[:80]!r} is not {KINDS}")
    if given.get("loss") == "cross-entropy":
        raise InputError("--loss: cross-entropy wants classes, and an expression has numbers; wanted mse, mae or huber")
    if _is_file(target):
        raise InputError(f"TARGET: {target[:80]!r} is a file of unknown kind; wanted {KINDS}, or an expression")


def _with_slash(target: str, domain: str) -> str:
    """Add the slash by which a folder is known; a name that the domain has is an expression."""
    is_name = re.search(rf"(^|,)\s*{re.escape(target)}\s*=", domain) is not None
    return f"{target}/" if not is_table(target) and not is_name and _is_folder(target) else target


def _is_folder(text: str) -> bool:
    try:
        return bool(text) and Path(text).is_dir()
    except (OSError, ValueError):  # the text is too long, or contains null bytes
        return False


def _is_file(text: str) -> bool:
    try:
        return re.search(r"\.[A-Za-z]\w*$", text) is not None and Path(text).exists()
    except (OSError, ValueError):  # the text is too long, or contains null bytes
        return False


def _error_message(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, FitConfig.model_fields, n=1)
        return f"{_option(name)}: no such option{f'; did you mean {_option(close[0])}?' if close else ''}"
    if name == "validation_points" and first["type"] != "less_than_equal":
        got = str(first["input"])[:60]
        return f"{_option(name)}: wanted a number of points, or a share below 1, got {got!r}"
    wanted = re.split(", unable to parse|, got ", first["msg"].removeprefix("Input should be "))[0]
    wanted = wanted.replace("a valid integer", "an integer").replace("a valid number", "a number")
    number = "a number " if wanted.startswith(("greater", "less")) else ""
    return f"{_option(name)}: wanted {number}{wanted[:1].lower()}{wanted[1:]}, got {str(first['input'])[:60]!r}"


def _option(name: str) -> str:
    return _OPTIONS.get(name, "--" + name.replace("_", "-"))
