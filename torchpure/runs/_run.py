"""One fit from configuration to folder: load, train, write, rename."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from torchpure import __version__, random

from ._config import FitConfig, command
from ._fit import STATUS, Fit, Report, fit
from ._folder import draft, slug
from ._network import Network, build
from ._plots import draw_fit, draw_loss
from ._points import Data, load


class Run(NamedTuple):
    """A finished and saved run."""

    directory: Path
    fit: Fit
    parameters: int


class Watcher(NamedTuple):
    """What follows a training, and may end it."""

    report: Report  # called after each step
    stop: Callable[[], int]  # the number of the signal that ends the run, or 0


Watch = Callable[
    [int], AbstractContextManager[Watcher]
]  # the number of steps -> a watcher for the time of the training


@contextmanager
def unwatched(steps: int) -> Iterator[Watcher]:
    """Yield a watcher that shows nothing and never ends the run."""
    yield Watcher(lambda step, loss: None, lambda: 0)


def run(config: FitConfig, out: Path | None = None, watch: Watch = unwatched) -> Run:
    """Fit and save; leave no files behind after an error.

    Raises:
        InputError: the target, a file or the output folder is invalid.
    """
    k_data, k_init = random.split(random.key(config.seed))
    data = load(config, k_data)
    network = build(config, data.train)
    with watch(config.steps) as watcher, draft(out, slug(_label(config))) as folder:
        result = fit(network, data, config, k_init, watcher.report, watcher.stop)
        _write(folder.path, config, data, network, result)
        directory = folder.publish()
    return Run(directory, result, sum(value.numel() for value in network.parameters()))


def summary(config: FitConfig, finished: Run) -> dict[str, Any]:
    """Return the result of a run in a form for JSON, where numbers that are not finite are null."""
    result = finished.fit
    return {
        "status": STATUS[result.code],
        "target": config.target,
        "train_loss": _json_number(result.train_loss),
        "test_loss": _json_number(result.test_loss),
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "parameters": finished.parameters,
        "seed": config.seed,
        "directory": str(finished.directory),
    }


def _write(folder: Path, config: FitConfig, data: Data, network: Network, result: Fit) -> None:
    description = {
        "torchpure": __version__,
        "torch": torch.__version__,
        "command": command(config),
        "config": config.model_dump(mode="json"),
        "data": {
            "inputs": data.inputs,
            "train_points": len(data.train.y),
            "test_points": len(data.test.y),
            "sha256": data.sha256,
        },
    }
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n")
    _write_metrics(folder / "metrics.jsonl", result)
    values = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    try:
        save_file(values, folder / "params.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"params.safetensors: {error}") from None
    label = _label(config)
    draw_loss(folder / "loss.png", result.losses, result.test_loss, f"{label}   loss")
    errors = f"train {result.train_loss:.2e}, test {result.test_loss:.2e}"
    draw_fit(folder / "fit.png", network, data, config.column or "y", f"{label}   mean squared error: {errors}")


def _write_metrics(path: Path, result: Fit) -> None:
    last = {
        "status": STATUS[result.code],
        "steps": result.steps,
        "train_loss": _json_number(result.train_loss),
        "test_loss": _json_number(result.test_loss),
        "seconds": result.seconds,
    }
    with path.open("w") as file:
        for step, loss in enumerate(result.losses, start=1):
            file.write(f'{{"step": {step}, "loss": {loss!r}}}\n')
        file.write(json.dumps(last) + "\n")


def _label(config: FitConfig) -> str:
    return f"{Path(config.target).stem} {config.column}" if config.column else config.target


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None
