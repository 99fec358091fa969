"""Functions of torch's CPU library that programs call: products of BLAS, and the loop on torch's threads."""

import ctypes
from functools import lru_cache
from pathlib import Path

import torch


@lru_cache(maxsize=1)
def torch_library() -> ctypes.CDLL | None:
    """Return torch's CPU library, if it is at its usual place."""
    paths = (Path(torch.__file__).parent / "lib" / f"libtorch_cpu.{end}" for end in ("so", "dylib"))
    path = next(filter(Path.exists, paths), None)
    return None if path is None else ctypes.CDLL(str(path))


@lru_cache(maxsize=1)
def gemm_pointers() -> tuple[int, int] | None:
    """Return the addresses of sgemm and dgemm in torch's library, if they are exported."""
    functions = [getattr(torch_library(), f"{letter}gemm_", None) for letter in "sd"]
    if None in functions:
        return None
    one, two = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions if function)
    return one, two


@lru_cache(maxsize=1)
def parallel_for_pointer() -> int:
    """Return the address of torch's parallel loop, or 0 if its library does not export one.

    Source: torch's stable ABI, `torch_parallel_for` in `torch/csrc/stable/c/shim.h`.
    """
    function = getattr(torch_library(), "torch_parallel_for", None)
    return (ctypes.cast(function, ctypes.c_void_p).value or 0) if function else 0
