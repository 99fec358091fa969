"""The dtypes of stored tensors, and how the safetensors format writes each."""

from typing import NamedTuple

import torch


class Stored(NamedTuple):
    """How elements of a dtype lie in a file."""

    dtype: torch.dtype
    code: str  # of the safetensors format
    parts: int  # numbers of this code in an element
    itemsize: int  # bytes of an element


# The codes that every version of safetensors knows. Other dtypes are stored as bytes, and complex ones as pairs of
# floats; the manifest has the dtype itself.
_CODES = {
    torch.bool: ("BOOL", 1),
    torch.uint8: ("U8", 1),
    torch.int8: ("I8", 1),
    torch.uint16: ("U16", 1),
    torch.int16: ("I16", 1),
    torch.uint32: ("U32", 1),
    torch.int32: ("I32", 1),
    torch.uint64: ("U64", 1),
    torch.int64: ("I64", 1),
    torch.float16: ("F16", 1),
    torch.bfloat16: ("BF16", 1),
    torch.float32: ("F32", 1),
    torch.float64: ("F64", 1),
    torch.float8_e4m3fn: ("F8_E4M3", 1),
    torch.float8_e5m2: ("F8_E5M2", 1),
    torch.float8_e4m3fnuz: ("U8", 1),
    torch.float8_e5m2fnuz: ("U8", 1),
    torch.float8_e8m0fnu: ("U8", 1),
    torch.float4_e2m1fn_x2: ("U8", 1),
    torch.complex32: ("F16", 2),
    torch.complex64: ("F32", 2),
    torch.complex128: ("F64", 2),
}


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype without `torch.`."""
    return str(dtype).removeprefix("torch.")


STORED = {dtype_name(dtype): Stored(dtype, code, parts, dtype.itemsize) for dtype, (code, parts) in _CODES.items()}


def num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the size of a tensor in bytes; Python's integers do not overflow."""
    size = STORED[dtype].itemsize
    for length in shape:
        size *= length
    return size
