"""Saving and restoring 1 GiB: against a plain write with fsync, and against safetensors.

Files are in the page cache when they are read. `load_file` maps a file and reads nothing. The peer that reads copies
each of its tensors to memory of its own, which `restore` does as well. No peer checks a hash.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import torchpure as tp

from ._harness import REPEATS, report

THREADS = 2
OURS = "torchpure"
PLAIN, SAFE, HASH = "write, fsync", "safetensors save_file, no fsync", "SHA-256 alone, one thread"
COPIED, MAPPED = "safetensors load_file, values copied", "safetensors load_file, nothing read"


def _seconds(call: Callable[[], object], after: Callable[[], object]) -> float:
    start = time.perf_counter()
    result = call()
    spent = time.perf_counter() - start
    del result
    after()
    return spent


def _write_plain(path: Path, tensors: dict[str, Tensor]) -> None:
    with path.open("wb", buffering=0) as file:
        for tensor in tensors.values():
            file.write(tensor.numpy().data)
        os.fsync(file.fileno())


def _hash(tensors: dict[str, Tensor]) -> None:
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(tensor.numpy().data)


def _rows(calls: dict[str, Callable[[], object]], after: Callable[[], object]) -> dict[str, list[float]]:
    """Time each call in turn, with one round before that counts for nothing."""
    rows: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(REPEATS + 1):
        for name, call in calls.items():
            seconds = _seconds(call, after)
            if number:
                rows[name].append(seconds)
    return rows


def main() -> None:
    """Compare 64 tensors of 16 MiB."""
    tensors = {f"layer{i}.w": torch.full((2048, 2048), float(i)) for i in range(64)}
    with tempfile.TemporaryDirectory(dir=os.environ.get("CHECKPOINTS_FOLDER")) as name:
        folder = Path(name)
        made = folder / "made"

        def remove() -> None:
            shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)

        calls: dict[str, Callable[[], object]] = {
            OURS: lambda: tp.save(made, tensors),
            PLAIN: lambda: _write_plain(made, tensors),
            SAFE: lambda: save_file(tensors, made),
            HASH: lambda: _hash(tensors),
        }
        settings = {OURS: "8 files, two threads, SHA-256 and BLAKE3, fsync of files and folders"}
        report("checkpoints: save 1 GiB", _rows(calls, remove), OURS, {PLAIN: 1.3}, settings, unit="s")
        tp.save(folder / "ours", tensors)
        save_file(tensors, folder / "theirs")
        calls = {
            OURS: lambda: tp.restore(folder / "ours"),
            COPIED: lambda: [value.clone() for value in load_file(folder / "theirs").values()],
            MAPPED: lambda: load_file(folder / "theirs"),
        }
        settings = {OURS: "8 files, two threads, BLAKE3 checked"}
        report("checkpoints: restore 1 GiB", _rows(calls, lambda: None), OURS, {COPIED: 1.2}, settings, unit="s")
