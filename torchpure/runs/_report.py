"""`report`: what a page shows of saved runs."""

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torchpure.data import LARGEST
from torchpure.errors import InputError

from ._loaded import LoadedRun, SavedRun, data_files, load_data, read_run, with_model
from .fits import Data, Sample, in_parts
from .page import Fitted, Page, PageRun, PageSweep, Points, confusion, plotly_script, write_page
from .saved import check_output, is_sweep, read_curves, read_description, read_sweep, replaced

MAX_RUNS = 100
MAX_POINTS = 2000  # of one kind
MAX_TARGETS = 20
MAX_CURVES = 8  # members of a sweep
MAX_RESULTS = 30
GRID = 600


def report(*runs: str | Path, output: str | Path = "report.html", force: bool = False) -> Path:
    """Write one HTML page about runs and sweeps, side by side, and return its path.

    The page holds all it needs: it sends no request. It shows curves, fits, residuals, configurations and versions.
    `force` replaces an existing file, but no data file of the runs.

    Raises:
        InputError: a run cannot be read, plotly is missing, or the page cannot be written, or exists.

    >>> import torchpure as tp
    >>> tp.report("runs/a", "runs/b", output="ab.html")  # doctest: +SKIP
    PosixPath('ab.html')
    """
    if not 1 <= len(runs) <= MAX_RUNS:
        raise InputError(f"report: wanted 1 to {MAX_RUNS} runs, got {len(runs)}")
    script, path = plotly_script(), Path(output)
    sweeps = [_page_sweep(Path(run), str(run)) for run in runs if is_sweep(Path(run))]
    saved = [read_run(run) for run in runs if not is_sweep(Path(run))]
    read = [*map(Path, runs), *(source for one in saved for source in one.sources)]
    read += [source for run in runs if is_sweep(Path(run)) for source in _data_file(Path(run))]
    check_output(path, read, force=force)
    shown = [_page_run(one) for one in saved]
    text = write_page(Page(shown, sweeps), script)
    with replaced(path, read, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _page_sweep(folder: Path, name: str) -> PageSweep:
    table = read_sweep(folder)
    losses = [loss for loss in ("validation_loss", "test_loss") if loss in table.columns]
    if not losses or "index" not in table.columns:
        return PageSweep(name, *table)
    index, loss = table.columns.index("index"), table.columns.index(losses[0])
    known = [row for row in table.rows if isinstance(row[loss], float | int) and type(row[index]) is int]
    best = sorted(known, key=lambda row: float(row[loss] or 0.0))[:MAX_CURVES]
    return PageSweep(name, *table, read_curves(folder, [int(row[index] or 0) for row in best]))


def _data_file(sweep: Path) -> list[Path]:
    """Return the data files of a sweep, if it has some; a sweep of another program may have no configuration."""
    with suppress(InputError):
        return data_files(str(read_description(sweep).config.get("target", "")))
    return []


def _page_run(run: SavedRun) -> PageRun:
    result, data = run.result or {}, run.description.data
    config = {name: _plain(value) for name, value in run.config.model_dump(mode="json").items()}
    points = {"training points": data.train_points, "test points": data.test_points, "sha256 of the data": data.sha256}
    versions = {name: getattr(run.description, name) for name in ("torchpure", "torch", "command")}
    end = (result["steps"], result["test_loss"]) if result and math.isfinite(result["test_loss"]) else None
    fitted, note = _fitted(run)
    return PageRun(
        str(run.directory),
        _results(run),
        config | points,
        versions,
        run.metrics,
        end,
        fitted,
        confusion(result.get("confusion"), run.preprocessing.classes),
        note,
    )


def _results(run: SavedRun) -> dict[str, object]:
    result = run.result or {}
    seconds, steps = result.get("seconds", math.nan), result.get("steps", math.nan)
    known = {
        "status": run.status,
        "steps": int(steps) if math.isfinite(steps) else len(run.metrics["step"]),
        "train loss": result.get("train_loss"),
        "test loss": result.get("test_loss"),
        "seconds": result.get("seconds"),
        "steps per second": steps / seconds if seconds > 0 else None,
    }
    others = {name.replace("_", " "): value for name, value in result.items() if isinstance(value, int | float)}
    return known | dict(list({name: others[name] for name in others if name not in known}.items())[:MAX_RESULTS])


def _fitted(run: SavedRun) -> tuple[list[Fitted], str]:
    """Return a fit for each target, or why there is none."""
    try:
        loaded = with_model(run)
        data = load_data(run)
        if not data.test.y.is_floating_point():
            return [], "classes have no residuals"
        count = 1 if data.test.y.dim() == 1 else data.test.y.shape[1]
        return [_fit_of(loaded, data, place) for place in range(min(count, MAX_TARGETS))], ""
    except InputError as error:
        return [], f"the fit is not shown: {error}"


def _fit_of(run: LoadedRun, data: Data, place: int) -> Fitted:
    def model(x: Tensor) -> np.ndarray:
        return _column(in_parts(run.model, x), place)

    samples = {"training": data.train, "validation": data.validation, "test": data.test}
    points = tuple(
        _points(model, name, sample, place) for name, sample in samples.items() if sample is not None and len(sample.y)
    )
    rules = run.preprocessing
    target = rules.targets[place].name
    if [(column.kind, column.width) for column in rules.inputs] != [("number", 1)]:
        return Fitted(target, None, points, np.zeros(0), np.zeros(0), None)
    grid = torch.linspace(*data.bounds[0], GRID, dtype=torch.float64).unsqueeze(-1)
    return Fitted(target, data.inputs[0], points, grid[:, 0].numpy(), model(grid), _truth(data, grid))


def _points(model: Callable[[Tensor], np.ndarray], name: str, sample: Sample, place: int) -> Points:
    stride = -(-len(sample.y) // MAX_POINTS)
    x, y = sample.x[::stride], sample.y[::stride]
    return Points(name, x[:, 0].numpy() if x.shape[1] == 1 else np.zeros(0), _column(y, place), model(x))


def _column(values: Tensor, place: int) -> np.ndarray:
    return (values if values.dim() == 1 else values[:, place]).numpy()


def _truth(data: Data, grid: Tensor) -> np.ndarray | None:
    if data.truth is None:
        return None
    values = data.truth(grid)
    return torch.where(values.abs() <= LARGEST, values, torch.nan).numpy()  # a pole between the points is a gap


def _plain(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list) else value
