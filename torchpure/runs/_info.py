"""What a run, a checkpoint, a data file or a file of parameters is, in a form for JSON."""

import math
import os
from pathlib import Path
from typing import Any

from torchpure import checkpoints
from torchpure.data import KINDS, column_names, is_data, is_table, list_files
from torchpure.errors import InputError

from ._loaded import UNFINISHED, SavedRun, read_run
from .saved import best_row, count_ends, is_sweep, read_description, read_header, read_sweep, read_sweep_result


def info(path: str | Path) -> dict[str, Any]:
    """Describe a run, a sweep, a checkpoint, a data file or a file of parameters, without reading tensors.

    Raises:
        InputError: it cannot be read, or is none of these.
        CheckpointError: a checkpoint is damaged.

    >>> import torchpure as tp
    >>> tp.runs.info("runs/2-sin-x-2-pi")["status"]  # doctest: +SKIP
    'done'
    """
    path = Path(path)
    if path.is_file() and is_table(path.name):
        return {"kind": "data file", "path": str(path), "columns": column_names(path)}
    if not os.path.lexists(path / "config.json") and not path.is_file() and is_data(path):
        files = len(list_files(path))
        return {"kind": "data files", "path": str(path), "files": files, "columns": column_names(path)}
    if path.is_file() and path.suffix == ".safetensors":
        return {"kind": "parameters", "path": str(path), "tensors": read_header(path.parent, path.name)}
    if path.is_file():
        raise InputError(f"{path}: wanted a run's folder, a checkpoint, a data file ({KINDS}) or .safetensors")
    if is_sweep(path):
        return _describe_sweep(path)
    if path.is_dir() and (os.path.lexists(path / "manifest.json") or any(path.glob("step-*"))):
        return _describe_checkpoint(checkpoints.describe(path))
    return _describe_run(read_run(path))


def _describe_checkpoint(found: checkpoints.Description) -> dict[str, Any]:
    return {
        "kind": "checkpoint",
        "path": str(found.path),
        **{name: found.metadata[name] for name in ("step", "metrics") if name in found.metadata},
        "leaves": {leaf.path: _leaf(leaf) for leaf in found.leaves},
        "bytes": found.num_bytes,
        **found.versions,
    }


def _describe_sweep(path: Path) -> dict[str, Any]:
    """Describe a sweep; one of another program may have its results alone."""
    table, known = read_sweep(path), {}
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    if os.path.lexists(path / "config.json"):
        description = read_description(path)
        target = " ".join(
            str(description.config[name]) for name in ("target", "column") if description.config.get(name)
        )
        result = read_sweep_result(path)
        known = {
            "target": target,
            "status": result.get("status", UNFINISHED),
            "members": count_ends([str(row.get("status")) for row in rows], description.members or 0),
            "best": best_row(table),
            "best_run": str(path / "best") if (path / "best").is_dir() else None,
            "seconds": result.get("seconds"),
            "torchpure": description.torchpure,
            "torch": description.torch,
            "command": description.command,
        }
    return {"kind": "sweep", "path": str(path), "columns": list(table.columns), "runs": len(table.rows), **known}


def _leaf(leaf: checkpoints.LeafInfo) -> str:
    return leaf.dtype if leaf.shape is None else f"{leaf.dtype} of shape {leaf.shape}"


def _describe_run(run: SavedRun) -> dict[str, Any]:
    result, config = run.result or {}, run.config
    known = {name: _finite(result.get(name)) for name in ("train_loss", "test_loss", "seconds")}
    return {
        "kind": "run",
        "path": str(run.directory),
        "target": config.target,
        "column": config.column,
        "inputs": {one.name: one.describe() for one in run.preprocessing.inputs},
        "points": f"{run.description.data.train_points} to train, {run.description.data.test_points} to test",
        "network": f"{','.join(map(str, config.hidden))} {config.activation}, {config.dtype}",
        "status": run.status,
        "steps": f"{result.get('steps', len(run.metrics['step'])):.0f} of {config.steps}",
        **known,
        "metrics": [name for name in run.metrics if name != "step"],
        "torchpure": run.description.torchpure,
        "torch": run.description.torch,
        "command": run.description.command,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
