"""`params.safetensors`: the header is compared with the tensors that are wanted before any number is read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from torchpure.errors import InputError

from ._files import open_file, read_bytes

NAME = "params.safetensors"
MAX_HEADER = 2**24
MAX_FILE = 2**40
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_parameters(folder: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read tensors of the names, shapes and dtypes of `wanted`.

    Raises:
        InputError: the file is missing, damaged or has other tensors.
    """
    path = folder / NAME
    size = sum(value.numel() * value.element_size() for value in wanted.values())
    content = read_bytes(folder, NAME, size + MAX_HEADER)
    found = {name: spec for name, spec in _header(path, content, len(content)).items() if name != "__metadata__"}
    for name in sorted(wanted.keys() | found.keys()):
        _compare(path, name, found.get(name), wanted.get(name))
    try:
        values = load(content)
    except SafetensorError as error:
        raise InputError(f"{path}: damaged: {error}") from None
    for name, value in values.items():
        if not bool(value.isfinite().all()):
            raise InputError(f"{path}: `{name}` has numbers that are not finite; the file was changed")
    return values


def read_header(folder: Path, name: str) -> dict[str, str]:
    """Describe the tensors of a safetensors file by name, such as `float32 of shape (4, 2)`.

    Raises:
        InputError: the file cannot be opened, is truncated or damaged.
    """
    with open_file(folder, name, MAX_FILE) as (file, size):
        header = _header(folder / name, file.read(8 + MAX_HEADER), size)
    return {key: _describe(spec) for key, spec in header.items() if key != "__metadata__"}


def _header(path: Path, content: bytes, size: int) -> dict[str, Any]:
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(MAX_HEADER, size - 8):
        raise InputError(f"{path}: {size} bytes are not a whole safetensors file; it is truncated or damaged")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise InputError(f"{path}: not a safetensors file: its header is no JSON object")
    return header


def _compare(path: Path, name: str, found: Any, wanted: Tensor | None) -> None:
    expected = None if wanted is None else f"{str(wanted.dtype).removeprefix('torch.')} of shape {tuple(wanted.shape)}"
    shown = None if found is None else _describe(found)
    if expected != shown:
        raise InputError(
            f"{path}: `{name[:80]}`: config.json asks for {expected or 'no such tensor'}, "
            f"the file has {shown or 'no such tensor'}"
        )


def _describe(spec: Any) -> str:
    if not isinstance(spec, dict) or not isinstance(spec.get("shape"), list):
        return "no description of a tensor"
    shape = ", ".join(str(size)[:20] for size in spec["shape"][:8]) + "," * (len(spec["shape"]) == 1)
    return f"{_DTYPES.get(str(spec.get('dtype')), str(spec.get('dtype'))[:20])} of shape ({shape})"
