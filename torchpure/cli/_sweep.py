"""`torchpure sweep`: many fits at once."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchpure.errors import InputError

from ._config_file import read_options
from ._fit import fit, output_folder
from ._output import format_loss, print_error, print_output
from ._signals import catch_signals

if TYPE_CHECKING:
    from torchpure.runs import SweepRun, SweepWatch

_VARY = "NAME=LOW:HIGH[:log|:linear]:N, NAME=A:B for integers A to B-1, or NAME=A|B|C; several multiply."
WORKERS = Annotated[
    int | None, typer.Option(metavar="N", help="Run in N processes of this machine, one thread each; same results.")
]
SCHEDULER = Annotated[
    str | None, typer.Option(metavar="tcp://HOST:8786", help="Run on the cluster of this Dask scheduler; same results.")
]
_OWN: dict[str, tuple[Any, Any]] = {  # options of a sweep alone: (annotation, default)
    "vary": (Annotated[list[str] | None, typer.Option("--vary", metavar="SPACE", help=_VARY)], None),
    "sampler": (
        Annotated[str | None, typer.Option(metavar="NAME", help="grid, random or optuna. (default grid)")],
        None,
    ),
    "trials": (Annotated[int | None, typer.Option(metavar="N", help="Members, for random and optuna.")], None),
    "stop_early": (
        Annotated[
            int | None, typer.Option(metavar="STEPS", help="End a member after so many steps without a smaller loss.")
        ],
        None,
    ),
    "workers": (WORKERS, None),
    "scheduler": (SCHEDULER, None),
}


def _with_options_of_fit(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments of `fit` and those of a sweep."""
    ctx, target, *others = inspect.signature(fit, eval_str=True).parameters.values()
    own = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
        for name, (annotation, default) in _OWN.items()
    ]
    parameters = [ctx, target, *own, *others]
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


@_with_options_of_fit
def sweep(ctx: typer.Context, **flags: Any) -> None:
    """Run many fits side by side, over learning rates, seeds, networks and more, and save their results.

    torchpure sweep "2*sin(x + 2*pi)" --vary learning_rate=1e-4:1e-1:log:32 --vary seed=0:32

    torchpure sweep houses.csv --target price --vary "hidden=16|64,64" --vary lr=1e-3:1e-1:log:8
    """
    try:
        code = _sweep(*read_options(ctx.params, flags["config"]), flags)
    except KeyboardInterrupt as error:
        raise typer.Abort from error
    raise typer.Exit(code)


def _sweep(options: Mapping[str, Any], source: Mapping[str, Any] | None, flags: Mapping[str, Any]) -> int:
    from torchpure import runs

    shared = {name: options[name] for name in runs.FitConfig.model_fields if name in options}
    space, sampler = _space(options["vary"]), options["sampler"] or "grid"
    # --vary wins over a value of the file, but not over one beside it
    runs.check_given_once(runs.read_axes(space, sampler), flags if flags["vary"] else shared, sampler)
    with runs.open_executor(_count("workers", options["workers"]), options["scheduler"]) as executor:
        finished = runs.sweep(
            shared,
            space,
            sampler=sampler,
            trials=_count("trials", options["trials"]),
            stop_early=_count("stop-early", options["stop_early"]),
            out=None if flags["out"] is None else output_folder(flags["out"]),
            watch=watch_sweep(quiet=flags["quiet"]),
            source=source,
            executor=executor,
        )
    return report_sweep(finished, as_json=flags["as_json"], quiet=flags["quiet"])


def _space(vary: Any) -> list[str] | dict[str, Any]:
    """Return the space of the flags, texts, or of a file, where it may also be a table."""
    if isinstance(vary, dict):
        return vary
    texts = [vary] if isinstance(vary, str) else vary or []
    if isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts):
        return [*texts]
    raise InputError(f"--vary: wanted texts or a table, got {str(vary)[:60]!r}")


def _count(name: str, value: Any) -> int | None:
    if value is None or type(value) is int:
        return value
    raise InputError(f"--{name}: wanted an integer, got {str(value)[:60]!r}")


def watch_sweep(*, quiet: bool) -> "SweepWatch":
    """Return what follows a sweep: the live table and the signals."""
    import torch

    from torchpure.runs import SweepWatcher

    from ._sweep_table import live_table

    @contextmanager
    def watch(threads: int) -> Iterator[SweepWatcher]:
        torch.set_num_threads(threads or torch.get_num_threads())
        with catch_signals() as stop, live_table(quiet=quiet) as report:
            yield SweepWatcher(report, stop)

    return watch


def report_sweep(finished: "SweepRun", *, as_json: bool, quiet: bool) -> int:
    """Print the result of a sweep, and return the exit code."""
    with catch_signals():  # the sweep is saved: say so
        if as_json:
            print_output(json.dumps(_summary(finished)), "the sweep")
        elif not quiet:
            print_output("\n".join(_lines(finished)), "the sweep")
    if finished.code == 1:
        print_error("the loss of every member stopped being finite; try a smaller --learning-rate", 1)
    elif finished.code:
        print_error(f"{finished.status}; go on with `torchpure resume {finished.directory}`", finished.code)
    return finished.code


def _summary(finished: "SweepRun") -> dict[str, Any]:
    return {
        "status": finished.status,
        "members": finished.counts(),
        "best": finished.best,
        "steps": sum(row["steps"] for row in finished.rows),
        "seconds": round(finished.seconds, 3),
        "directory": str(finished.directory),
    }


def _validation(best: Mapping[str, Any] | None) -> list[str]:
    if best is None or "validation_loss" not in best:
        return []
    return [f"validation  {format_loss(best['validation_loss'])}  (by which the best member is chosen)"]


def _lines(finished: "SweepRun") -> Sequence[str]:
    best, steps = finished.best, sum(row["steps"] for row in finished.rows)
    values = ", ".join(f"{axis.name} {best[axis.name]}" for axis in finished.axes) if best else "-"
    ends = ", ".join(f"{count} {end}" for end, count in finished.counts().items())
    return [
        f"best        {values}",
        f"train loss  {format_loss(best['train_loss'] if best else None)}",
        f"test loss   {format_loss(best['test_loss'] if best else None)}  ({finished.loss})",
        *_validation(best),
        f"members     {ends or 'none'}",
        f"{steps} steps in {finished.seconds:.2f} s, {steps / max(finished.seconds, 1e-9):.3g} members\u00b7steps/s",
        str(finished.directory),
    ]
