"""The best member of a sweep as a run of its own."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save

from ._folder import replace_file
from ._plots import draw_fit
from ._run import describe_run, label
from .fits import Data, FitConfig, Network, loss_name, measure
from .sweeps import Outcome, Position, Prepared, Row, fill_network, report_steps, score, validation_steps


class Best(NamedTuple):
    """The best member so far."""

    row: Row
    config: FitConfig
    network: Network
    data: Data
    curve: dict[int, dict[str, float]]  # the losses that are known after a step


def better(best: Best | None, prepared: Prepared, position: Position, outcome: Outcome) -> Best | None:
    """Return the better one of `best` and the best member of a group; the first of equals."""
    losses = {place: loss for place, row in enumerate(outcome.rows) if (loss := score(row)) is not None}
    if not losses:
        return best
    place = min(losses, key=losses.__getitem__)
    so_far = None if best is None else score(best.row)
    if so_far is not None and so_far <= losses[place]:
        return best
    network, data = fill_network(prepared, outcome.params, place)
    curve: dict[int, dict[str, float]] = {}
    group, members = prepared.group, len(prepared.members)
    parts = [("loss", report_steps(group.task.steps), position.curves)]
    if position.validation is not None:
        parts.append(("validation_loss", validation_steps(group, members), position.validation))
    for name, numbers, values in parts:
        for step, value in zip(numbers, values[:, place].tolist(), strict=True):
            if value == value:
                curve.setdefault(step, {})[name] = value
    return Best(outcome.rows[place], prepared.members[place].config, network, data, curve)


def save_best(folder: Path, best: Best) -> None:
    """Write the folder of a run; it replaces an older one."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    for path in (temporary, folder):
        shutil.rmtree(path, ignore_errors=True)
    temporary.mkdir()
    row, network = best.row, best.network
    values = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    measured = measure(network, best.data.test, loss_name(best.config, best.data.preprocessing))
    del measured["loss"]  # it is the test loss
    status = "done" if row["status"] == "stopped" else row["status"]
    result = {"status": status, **{name: row[name] for name in ("steps", "train_loss", "test_loss")}}
    result |= measured
    lines = [{"step": step, **best.curve[step]} for step in sorted(best.curve)]
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
