"""`torchpure fit`: train, and save the run."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchpure.errors import InputError

from ._config_file import read_options
from ._info import shown
from ._output import format_loss, print_error, print_output
from ._signals import catch_signals

if TYPE_CHECKING:
    from torchpure.runs import FitConfig, Run, Watch


def fit(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="An expression in x, a .csv, .parquet, .arrow or .npz file, or a folder of such files.",
        ),
    ],
    column: Annotated[
        str | None, typer.Option("--target", metavar="COLUMN", help="File: the column to fit, or A,B for several.")
    ] = None,
    inputs: Annotated[
        str | None, typer.Option(metavar="A,B", help="File: the input columns. (default all others)")
    ] = None,
    categorical: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="File: categories become one-hot, embedding or auto: up to 16 one-hot."),
    ] = None,
    categories: Annotated[
        str | None, typer.Option(metavar="A,B", help="File: columns that are categories. (default all text)")
    ] = None,
    missing: Annotated[
        str | None, typer.Option(metavar="NAME", help="File: missing values: error, drop or mean. (default error)")
    ] = None,
    unseen: Annotated[
        str | None, typer.Option(metavar="NAME", help="File: new categories: average or error. (default average)")
    ] = None,
    dates: Annotated[
        str | None, typer.Option(metavar="NAME", help="File: dates become days or calendar parts too. (default days)")
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="N", help="File: memory, such as 500M, above which it is read in blocks. (default 4G)"),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(metavar="BOUNDS", help="Expression: x=LOW:HIGH,y=LOW:HIGH (default x=0:2*pi)")
    ] = None,
    train_points: Annotated[
        int | None, typer.Option(metavar="N", help="Points to train on. (default 40; for a file 80%)")
    ] = None,
    test_points: Annotated[
        int | None, typer.Option(metavar="N", help="Points to test on. (default 10; for a file 20%)")
    ] = None,
    validation_points: Annotated[
        str | None, typer.Option(metavar="N", help="Points, or a share such as 0.1, to validate on. (default none)")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(metavar="NAME", help="mse, mae, huber or cross-entropy. (default mse; text: the last)")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help='article: the small tanh network of "Introduction to functional PyTorch" (2023).'
        ),
    ] = None,
    hidden: Annotated[
        str | None, typer.Option(metavar="A,B", help="Widths of the hidden layers. (default 32,32)")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(metavar="NAME", help="tanh, relu, gelu, silu or sigmoid. (default silu)")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(metavar="NAME", help="adam, adamw or sgd. (default adam)")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", metavar="R", help="(default 0.02; sgd 0.1)")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(metavar="D", help="Decoupled for adamw, else a penalty. (default 0; adamw 0.01)")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(metavar="NAME", help="Learning rate schedule: cosine or constant. (default cosine)")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Points in each update. (default all training points)")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Updates of the parameters. (default 500)")] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of the points and of the initial values. (default 0)")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="CPU threads. (default 1 for a small network, else torch's own)")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(metavar="N", help="Steps between checkpoints; 0: at the end only. (default 1000)")
    ] = None,
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="float32 or float64. (default float32)")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where to train: cpu, cuda, ... (default cpu)")
    ] = None,
    mesh: Annotated[
        str | None, typer.Option(metavar="data=N", help="Share the points among N processes, started by torchrun.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="A TOML file with options; those given here win.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="A new folder for the run. (default runs/<name>)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
) -> None:
    """Fit a network to an expression or to a data file, and save the run.

    torchpure fit "2*sin(x + 2*pi)"

    torchpure fit "x*exp(-x**2 - y**2)" --domain x=-2:2,y=-2:2 --train-points 400

    torchpure fit houses.csv --target price --inputs area,rooms
    """
    try:
        code = _fit(*read_options(ctx.params, config), None if out is None else output_folder(out), ctx.params)
    except KeyboardInterrupt as error:
        raise typer.Abort from error
    raise typer.Exit(code)


def _fit(
    options: Mapping[str, Any], source: Mapping[str, Any] | None, out: Path | None, flags: Mapping[str, Any]
) -> int:
    from torchpure.runs import FitConfig, configure, is_first, run

    config = configure({name: value for name, value in options.items() if name in FitConfig.model_fields})
    silent = not is_first()
    finished = run(config, out, watch(quiet=flags["quiet"] or silent), source)
    if silent:
        return finished.fit.code
    return report_run(config, finished, as_json=flags["as_json"], quiet=flags["quiet"])


def watch(*, quiet: bool) -> "Watch":
    """Return what follows a fit: the live line and the signals."""
    import torch

    from torchpure.runs import Watcher

    from ._progress import live_line

    @contextmanager
    def watched(steps: int, threads: int) -> Iterator[Watcher]:
        torch.set_num_threads(threads or torch.get_num_threads())
        with catch_signals() as stop, live_line(steps, quiet=quiet) as report:
            yield Watcher(report, stop)

    return watched


def report_run(config: "FitConfig", finished: "Run", *, as_json: bool, quiet: bool) -> int:
    """Print the result of a run, and return the exit code."""
    from torchpure.runs import summary

    with catch_signals():  # the run is saved: say so
        _print_result(summary(config, finished), finished.fit.code, as_json=as_json, quiet=quiet)
    return finished.fit.code


def _print_result(result: dict[str, Any], code: int, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_output(json.dumps(result), "the run")
    elif not quiet:
        inputs = f"inputs      {shown(result['inputs'])}\n" if "inputs" in result else ""
        print_output(
            f"{inputs}train loss  {format_loss(result['train_loss'])}\n"
            f"test loss   {format_loss(result['test_loss'])}  ({result['loss']})\n"
            f"{_format_measured(result)}\n"
            f"{result['steps']} steps in {result['seconds']:.2f} s, {result['parameters']} parameters\n"
            f"{result['directory']}",
            "the run",
        )
    if code == 1:
        print_error(
            f"the loss stopped being finite; step {result['steps']}, the last good one, is saved; "
            "try a smaller --learning-rate",
            code,
        )
    elif code:
        print_error(
            f"{result['status']} after step {result['steps']}; go on with `torchpure resume {result['directory']}`",
            code,
        )


def output_folder(text: str) -> Path:
    """Return the folder that `--out` names.

    Raises:
        InputError: the text is no name.
    """
    if not text.strip() or "\0" in text:
        raise InputError(f"--out: {text!r} is not a name for a folder")
    return Path(text)


def _format_measured(result: Mapping[str, Any]) -> str:
    if "accuracy" in result:
        return f"accuracy    {result['accuracy']:.1%} of the test points"
    r2, error = (("-" if result[name] is None else f"{result[name]:.4f}") for name in ("r2", "relative_error"))
    return f"test R²     {r2}, relative error {error}"
