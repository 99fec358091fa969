"""One fit from its configuration to its folder, and on from there if it was interrupted."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from torchpure import __version__, random
from torchpure.data import Preprocessing, is_table
from torchpure.errors import InputError

from ._folder import new_folder, open_checkpoints, replace_file, slug
from ._loaded import load_data, read_run
from ._log import NAME as METRICS
from ._log import Log, open_log
from ._longer import describe_longer, has_checkpoint, longer
from ._plots import draw_fit, draw_loss
from ._processes import agreed, check_points, for_these_processes, open_mesh, own_folder, writes
from .fits import MAX_STEPS, NAMES, STATUS, Data, Fit, FitConfig, Network, build, command, fit, load, loss_name
from .saved import read_seconds

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

CHECKPOINTS = "checkpoints"
MIN_PRODUCTS_FOR_THREADS = 10_000_000  # a step below takes less than 2 ms on one thread


class Run(NamedTuple):
    """A finished and saved run."""

    directory: Path
    fit: Fit
    parameters: int
    preprocessing: Preprocessing


class Watcher(NamedTuple):
    """What follows a training, and may end it."""

    report: Callable[[int, float], None]  # called after each step with its number and loss
    stop: Callable[[], int]  # the number of the signal that ends the run, or 0


# (number of steps, of threads to use or 0 for the number that torch has) -> a watcher for the time of the training
Watch = Callable[[int, int], AbstractContextManager[Watcher]]


@contextmanager
def unwatched(steps: int, threads: int) -> Iterator[Watcher]:
    """Yield a watcher that shows nothing and never ends the run."""
    yield Watcher(lambda step, loss: None, lambda: 0)


def run(
    config: FitConfig, out: Path | None = None, watch: Watch = unwatched, source: Mapping[str, Any] | None = None
) -> Run:
    """Fit and save, in a new folder; after an error the folder stays if it holds a checkpoint.

    The configuration is written first, the metrics grow while the run goes on, and the rest comes at its end.
    `source` says where the options come from; it is saved with the configuration.

    Raises:
        InputError: the target, a file or the output folder is invalid.
        CheckpointError: a checkpoint cannot be written.

    >>> from tempfile import mkdtemp
    >>> from torchpure.runs import configure
    >>> finished = run(configure({"target": "sin(x)", "steps": 3, "hidden": "2"}), Path(mkdtemp()) / "first")
    >>> sorted(path.name for path in finished.directory.glob("*.json*"))
    ['config.json', 'metrics.jsonl', 'result.json']
    """
    data = load(config, _keys(config)[0])
    network = build(config, data.train, data.preprocessing)
    with (
        open_mesh(config) as mesh,
        watch(config.steps, _threads(config, data, network)) as watcher,
        own_folder(out, mesh) as place,
        new_folder(place, slug(label(config)), has_checkpoint) as folder,
    ):
        check_points(mesh, config, len(data.train.y))
        (folder / METRICS).touch()  # before the configuration, which makes the folder a run: a killed one has both
        replace_file(folder / "config.json", describe_run(config, data, source))
        return _train(folder, config, data, network, watcher, mesh=mesh)


def resume(
    run: str | Path,
    watch: Watch = unwatched,
    *,
    steps: int | str | None = None,
    epochs: int | str | None = None,
    note: Callable[[str], object] = lambda text: None,
) -> Run:
    """Go on with a run that was interrupted or killed, from its newest checkpoint, or from its start if it has none.

    With `steps`, in all, or "+500" for 500 more, a run that is done is trained longer too; `epochs` counts passes over
    the training points of a run with minibatches. `note` is called with a reason if the result then differs from that
    of a run with these steps from its start, because a cosine schedule depends on their number.

    Law: the metrics and the parameters equal those of a run that was not interrupted, bit for bit, on the same machine.
    Law: so do the losses and the parameters of a run that is trained longer, if its schedule is constant.
    Law: on any number of processes, which `torchrun` starts, the result is the same, up to rounding.

    Raises:
        InputError: it is no such run, it is done or diverged, its data file has changed, `steps` do not fit, or the
            processes do not divide a batch.
        CheckpointError: a checkpoint is damaged, or another process writes there.
        MeshError: another process has failed.

    ::

        resume("runs/2-sin-x")  # after Ctrl-C, a kill, or a machine that stopped
    """
    saved = read_run(run)
    more = longer(saved, steps, epochs, has_checkpoint(saved.directory))
    if more is None and saved.status in ("done", "diverged"):
        ways = {"done": "longer, name more --steps", "diverged": "again, fit again with a smaller --learning-rate"}
        raise InputError(
            f"{saved.directory}: the run is {saved.status}; wanted one that was interrupted or killed; "
            f"to train {ways[saved.status]}"
        )
    seconds = read_seconds(saved.directory).get("seconds", 0.0)
    data = load_data(saved)
    network, config, description = build(saved.config, data.train, data.preprocessing), saved.config, None
    if more is not None:
        config, extra = more.config, (saved.description.model_extra or {}).get("config_file")
        description = describe_run(config, data, extra, describe_longer(saved, more))
        if more.why_inexact:
            note(more.why_inexact)
    config = for_these_processes(config)
    with (
        open_mesh(config) as mesh,
        watch(config.steps, _threads(config, data, network)) as watcher,
        own_folder(saved.directory, mesh) as folder,
    ):
        assert folder is not None
        check_points(mesh, config, len(data.train.y))
        folder.mkdir(exist_ok=True)  # of another process than the first
        return _train(folder, config, data, network, watcher, max(seconds, 0.0), description, mesh)


def _keys(config: FitConfig) -> tuple[Tensor, Tensor]:
    """Return the keys of the points and of the initial values."""
    k_data, k_init = random.split(random.key(config.seed))
    return k_data, k_init


def _threads(config: FitConfig, data: Data, network: Network) -> int:
    """Return the number of threads; a small network gains nothing from several, which wait for each other."""
    points = min(config.batch_size or len(data.train.y), len(data.train.y))
    products = points * sum(value.numel() for value in network.parameters())
    return config.threads or (1 if products < MIN_PRODUCTS_FOR_THREADS else 0)


def _train(
    folder: Path,
    config: FitConfig,
    data: Data,
    network: Network,
    watcher: Watcher,
    seconds: float = 0.0,
    description: bytes | None = None,
    mesh: "DeviceMesh | None" = None,
) -> Run:
    """Train and save; `seconds` are those of the parts before, where the run is resumed.

    A new `description` is written after the last line of the metrics is taken back, so that a run which is killed
    between the two is unfinished, and not done with fewer steps than it has.
    """
    every = config.checkpoint_every or MAX_STEPS + 1
    with open_checkpoints(folder, CHECKPOINTS, keep=2, every=every) as checkpointer:
        try:
            with open_log(folder, checkpointer.latest() or 0) as log:
                if description is not None:
                    replace_file(folder / "config.json", description)

                def report(step: int, loss: float, validation_loss: float | None) -> None:
                    log.step(step, loss, validation_loss)
                    watcher.report(step, loss)

                stop = agreed(mesh, watcher.stop)
                result = fit(network, data, config, _keys(config)[1], report, stop, checkpointer, log.losses, mesh)
                result = result._replace(seconds=seconds + result.seconds)
                if writes(mesh):
                    _write(folder, config, data, network, result, log)
        except BaseException as error:
            if (step := checkpointer.latest()) is not None:
                error.add_note(f"step {step} is saved: `torchpure resume {folder}` goes on from it")
            raise
    return Run(folder, result, sum(value.numel() for value in network.parameters()), data.preprocessing)


def summary(config: FitConfig, finished: Run) -> dict[str, Any]:
    """Return the result of a run in a form for JSON, where numbers that are not finite are null.

    ::

        print(json.dumps(summary(config, run(config))))
    """
    result, inputs = finished.fit, finished.preprocessing.inputs
    return {
        "status": STATUS[result.code],
        "target": config.target,
        **({"inputs": {one.name: one.describe() for one in inputs}} if is_table(config.target) else {}),
        "train_loss": _json_number(result.train_loss),
        "test_loss": _json_number(result.test_loss),
        "loss": NAMES[loss_name(config, finished.preprocessing)],
        **result.measured,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "parameters": finished.parameters,
        "seed": config.seed,
        "directory": str(finished.directory),
    }


def describe_run(
    config: FitConfig,
    data: Data,
    source: Mapping[str, Any] | None = None,
    trained_longer: Sequence[Mapping[str, object]] = (),
) -> bytes:
    """Return the content of `config.json`."""
    description = {
        "torchpure": __version__,
        "torch": torch.__version__,
        "command": command(config),
        "config": config.model_dump(mode="json"),
        "data": {
            "inputs": data.inputs,
            "train_points": data.train_points,
            "test_points": len(data.test.y),
            "validation_points": 0 if data.validation is None else len(data.validation.y),
            "loss": loss_name(config, data.preprocessing),
            "preprocessing": data.preprocessing.model_dump(mode="json"),
            "sha256": data.sha256,
        },
    }
    description |= {} if source is None else {"config_file": source}
    description |= {"trained_longer": trained_longer} if trained_longer else {}
    return json.dumps(description, indent=2).encode() + b"\n"


def _write(folder: Path, config: FitConfig, data: Data, network: Network, result: Fit, log: Log) -> None:
    values = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    replace_file(folder / "params.safetensors", save(values, metadata={"format": "pt"}))
    title, name = label(config), NAMES[loss_name(config, data.preprocessing)]
    draw_loss(folder / "loss.png", result.losses, result.test_loss, f"{title}   loss", name)
    errors = f"train {result.train_loss:.2e}, test {result.test_loss:.2e}"
    draw_fit(folder / "fit.png", network, data, config.column or "y", f"{title}   {name}: {errors}")
    last = {
        "status": STATUS[result.code],
        "steps": result.steps,
        "train_loss": _json_number(result.train_loss),
        "test_loss": _json_number(result.test_loss),
        **result.measured,
    }
    seconds = {"seconds": result.seconds, "threads": torch.get_num_threads()}
    replace_file(folder / "result.json", json.dumps(last | seconds, indent=2).encode() + b"\n")
    log.end(last)  # this line is what makes the run ended: before it, `resume` writes all of these files again


def label(config: FitConfig) -> str:
    """Name the target of a run: of a file its name, of a pattern that of its folder."""
    if not config.column:
        return config.target
    names = [part for part in Path(config.target).parts if not re.search(r"[*?]", part)]
    return f"{Path(names[-1]).stem if names else 'data'} {config.column}"


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None
