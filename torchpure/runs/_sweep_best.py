"""The best member of a sweep as a run of its own."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save

from ._config import FitConfig
from ._folder import replace_file
from ._network import Network
from ._plots import draw_fit
from ._points import Data
from ._run import describe_run, label
from ._sweep_groups import Outcome, Prepared, fill_network
from .sweeps import Position, Row, report_steps


class Best(NamedTuple):
    """The member with the least test loss so far."""

    row: Row
    config: FitConfig
    network: Network
    data: Data
    curve: list[tuple[int, float]]  # report steps and training losses


def better(best: Best | None, prepared: Prepared, position: Position, outcome: Outcome) -> Best | None:
    """Return the better one of `best` and the best member of a group; the first of equals."""
    losses = {place: row["test_loss"] for place, row in enumerate(outcome.rows) if row["test_loss"] is not None}
    if not losses:
        return best
    place = min(losses, key=losses.__getitem__)
    if best is not None and best.row["test_loss"] <= losses[place]:
        return best
    network, data = fill_network(prepared, outcome.params, place)
    numbers = report_steps(prepared.group.task.steps)
    curve = [
        (step, loss) for step, loss in zip(numbers, position.curves[:, place].tolist(), strict=True) if loss == loss
    ]
    return Best(outcome.rows[place], prepared.members[place].config, network, data, curve)


def save_best(folder: Path, best: Best) -> None:
    """Write the folder of a run; it replaces an older one."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    for path in (temporary, folder):
        shutil.rmtree(path, ignore_errors=True)
    temporary.mkdir()
    row, network = best.row, best.network
    values = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    status = "done" if row["status"] == "stopped" else row["status"]
    result = {"status": status, **{name: row[name] for name in ("steps", "train_loss", "test_loss")}}
    lines = [{"step": step, "loss": loss} for step, loss in best.curve]
    metrics = "".join(json.dumps(line) + "\n" for line in [*lines, result])
    replace_file(temporary / "config.json", describe_run(best.config, best.data))
    replace_file(temporary / "metrics.jsonl", metrics.encode())
    replace_file(temporary / "params.safetensors", save(values, metadata={"format": "pt"}))
    replace_file(temporary / "result.json", json.dumps(result, indent=2).encode() + b"\n")
    network.cpu()
    title = f"{label(best.config)}   test loss {row['test_loss']:.2e}"
    with torch.no_grad():
        draw_fit(temporary / "fit.png", network, best.data, best.config.column or "y", title)
    temporary.rename(folder)
