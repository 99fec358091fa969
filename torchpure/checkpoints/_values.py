"""Leaves that are not tensors, as JSON: numbers, strings, dtypes, devices and shapes."""

import math
from typing import Any

import torch

from ._dtypes import dtype_name

_DTYPES = {dtype_name(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_SPECIAL = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_LARGEST = 1 << 63  # of integers that are written as JSON numbers
KINDS = "a tensor, bool, int, float, complex, str, None, torch.dtype, torch.device or torch.Size"


def kind_of(value: Any) -> str | None:
    """Return the name of a value's kind; None if it cannot be stored. Subclasses are other kinds."""
    return _KINDS.get(type(value))


def encode(value: Any) -> Any:
    """Return the JSON of a value of a known kind.

    >>> encode(float("-inf")), encode(1 << 70), encode(torch.Size([2, 3]))
    ('-inf', '0x400000000000000000', [2, 3])
    """
    match value:
        case bool() | str():
            return value
        case int():
            return value if abs(value) < _LARGEST else hex(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case complex():
            return [encode(value.real), encode(value.imag)]
        case torch.dtype():
            return dtype_name(value)
        case torch.device():
            return str(value)
    return list(value)


def decode(kind: str, stored: Any) -> Any:
    """Return the value of a kind from its JSON.

    Raises:
        ValueError: the JSON is not that of a value of this kind.
    """
    try:
        return _DECODERS[kind](stored)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"wanted the value of a leaf, got {kind!r:.40}: {stored!r:.40}") from None


def _only(wanted: type, stored: Any) -> Any:
    if type(stored) is not wanted:
        raise TypeError
    return stored


def _int(stored: Any) -> int:
    return int(stored, 16) if type(stored) is str else _only(int, stored)


def _float(stored: Any) -> float:
    if type(stored) is str:
        return _SPECIAL[stored]
    if not math.isfinite(_only(float, stored)):  # JSON reads 1e999 as infinity
        raise ValueError
    return stored


def _complex(stored: Any) -> complex:
    real, imag = _only(list, stored)
    return complex(_float(real), _float(imag))


def _size(stored: Any) -> torch.Size:
    return torch.Size([_only(int, length) for length in _only(list, stored)])


_DECODERS = {
    "bool": lambda stored: _only(bool, stored),
    "int": _int,
    "float": _float,
    "complex": _complex,
    "str": lambda stored: _only(str, stored),
    "dtype": lambda stored: _DTYPES[stored],
    "device": lambda stored: torch.device(_only(str, stored)),
    "Size": _size,
}
_KINDS = {
    bool: "bool",
    int: "int",
    float: "float",
    complex: "complex",
    str: "str",
    torch.dtype: "dtype",
    torch.device: "device",
    torch.Size: "Size",
}
