"""Export the model of a run for programs without torchpure, and compare the exported model with it."""

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import Dim

from torchpure.data import encode, read_table
from torchpure.errors import InputError

from ._loaded import LoadedRun, load_data, load_run
from .fits import in_parts
from .saved import check_output, replaced

FORMATS = ("torch-export", "onnx")
MAX_COMPARED = 100_000  # rows
_NOISE = "torch.onnx"  # warns of packages that are not installed


class Exported(NamedTuple):
    """An exported model, and how far it is from the model of the run."""

    path: Path
    rows: int  # that were compared
    difference: float  # the largest one, in the units of the target


def export(
    run: str | Path | LoadedRun,
    form: str,
    output: str | Path,
    *,
    compare: str | Path | None = None,
    force: bool = False,
) -> Exported:
    """Export a run's model for any number of rows, and compare it on the run's test data or on a data file.

    `form` is `torch-export` (read it with torch.export.load) or `onnx`. The exported model takes a float64 tensor of
    shape (rows, features) in the user's units, and returns the predictions, (rows,). Columns of numbers are features
    as they are; `torchpure.data.encode` makes those of other columns. `force` replaces an existing file, but neither
    the data to compare on nor the run's.

    Raises:
        InputError: the run or a file cannot be read, the form is unknown, its packages are missing, or the output
            exists.

    >>> import torchpure as tp
    >>> tp.runs.export("runs/2-sin-x-2-pi", "torch-export", "sine.pt2").difference  # doctest: +SKIP
    0.0
    """
    writers: dict[str, Callable[[LoadedRun, Tensor, Path], Callable[[Tensor], Tensor]]] = {
        "torch-export": _to_torch_export,
        "onnx": _to_onnx,
    }
    if form not in writers:
        raise InputError(f"--format: wanted {' or '.join(FORMATS)}, got {form[:40]!r}")
    loaded = run if isinstance(run, LoadedRun) else load_run(run)
    read = [*loaded.sources, *([] if compare is None else [Path(compare)])]
    check_output(Path(output), read, force=force)
    rules = loaded.preprocessing.inputs
    table = None if compare is None else read_table(Path(compare), [column.name for column in rules])
    x = (_test_inputs(loaded) if table is None else encode(rules, table))[:MAX_COMPARED]
    if not len(x):
        raise InputError(f"{compare}: has no rows to compare on")
    with replaced(Path(output), read, force=force) as path, _quiet():
        exported = writers[form](loaded, x, path)
        difference = float((in_parts(exported, x) - in_parts(loaded.model, x)).abs().max())
    return Exported(Path(output), len(x), difference)


def _test_inputs(run: LoadedRun) -> Tensor:
    try:
        return load_data(run).test.x
    except InputError as error:
        raise InputError(f"{error}; --compare FILE names other data to compare on") from None


def _to_torch_export(run: LoadedRun, x: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    program = torch.export.export(run.model, (_example(x),), dynamic_shapes=({0: Dim("rows", min=1)},))
    with path.open("wb") as file:
        torch.export.save(program, file)
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _to_onnx(run: LoadedRun, x: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    onnxruntime = _onnx_packages()
    shapes = ({0: Dim("rows", min=1)},)
    program = torch.onnx.export(
        run.model,
        (_example(x),),
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=["inputs"],
        output_names=["predicted"],
        verbose=False,
    )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # paths of this machine's source files
    program.save(path)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of errors for each of its codes
        raise InputError(
            f"--format onnx: onnxruntime cannot run this model: {' '.join(str(error).split())[:200]}; "
            f"{run.config.activation} in {run.config.dtype} may be the reason: train with --dtype float32"
        ) from None
    return lambda rows: torch.from_numpy(session.run(None, {"inputs": rows.numpy()})[0])


def _onnx_packages() -> Any:
    try:
        for name in ("onnx", "onnxscript"):  # torch.onnx needs them
            importlib.import_module(name)
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InputError(
            f"--format onnx: needs {error.name or 'its packages'}: pip install 'torchpure[export]'"
        ) from None
    return onnxruntime


def _example(x: Tensor) -> Tensor:
    """Make two rows: with one row, the number of rows would be taken as a constant."""
    return x[:1].repeat(2, 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what exporters say about themselves."""
    logger = logging.getLogger(_NOISE)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
