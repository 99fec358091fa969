"""`config.json`: the configuration of a run, the versions and its data."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from torchpure.data import Preprocessing
from torchpure.errors import InputError

from ._files import read_bytes

NAME = "config.json"
MAX_BYTES = 2**22
MAX_TEXT = 2**20

Text = Annotated[str, Field(max_length=MAX_TEXT)]


class DataDescription(BaseModel):
    """What a run says about its data; later versions may say more."""

    model_config = ConfigDict(frozen=True, extra="allow")

    inputs: Annotated[tuple[Text, ...], Field(min_length=1, max_length=10_000)]
    train_points: Annotated[int, Field(ge=1)]
    test_points: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    preprocessing: Preprocessing | None = None  # None: a run of an older version, whose columns are all numbers


class Description(BaseModel):
    """The content of `config.json`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    torchpure: Text
    torch: Text
    command: Text = ""
    config: dict[str, Any]  # checked by the class that made it
    data: DataDescription
    members: Annotated[int, Field(ge=0)] | None = None  # of a sweep


def read_description(folder: Path) -> Description:
    """Read and check `config.json`.

    Raises:
        InputError: the file is missing, too large, or not what `torchpure fit` writes.
    """
    path = folder / NAME
    text = read_bytes(folder, NAME, MAX_BYTES)
    try:
        return Description.model_validate(json.loads(text))
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not the JSON that `torchpure fit` writes: {str(error)[:200]}") from None


def describe(error: ValidationError) -> str:
    """Say in one line where a value is wrong, what was wanted, and what came."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))[:100] or "the whole file"
    return f"`{place}`: {first['msg'][:1].lower()}{first['msg'][1:200]}, got {_shown(first['input'])}"


def _shown(value: object) -> str:
    return repr(value)[:60] if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
