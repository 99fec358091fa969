"""`torchpure resume`: go on with a run or a sweep."""

from typing import Annotated

import typer

from torchpure.errors import InputError

from ._fit import report_run, watch
from ._output import print_error
from ._sweep import SCHEDULER, WORKERS, report_sweep, watch_sweep


def resume(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The folder of a run or sweep that was interrupted or killed.")
    ],
    steps: Annotated[
        str | None,
        typer.Option(metavar="N", help="Train a run longer, also one that is done: steps in all, or +N more."),
    ] = None,
    epochs: Annotated[
        str | None, typer.Option(metavar="N", help="The same in passes over the training points, with --batch-size.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
    workers: WORKERS = None,
    scheduler: SCHEDULER = None,
) -> None:
    """Go on with a run or a sweep, from its newest checkpoint; the result is that of one which was not interrupted.

    torchpure resume runs/2-sin-x-2-pi

    torchpure resume runs/2-sin-x-2-pi --steps 2000
    """
    from torchpure import runs

    try:
        if runs.is_sweep_folder(run):
            if steps is not None or epochs is not None:
                raise InputError(
                    f"--steps, --epochs: {run} is a sweep, whose members keep theirs; sweep again with more"
                )
            with runs.open_executor(workers, scheduler) as executor:
                swept = runs.resume_sweep(run, watch_sweep(quiet=quiet), executor)
            code = report_sweep(swept, as_json=as_json, quiet=quiet)
        elif workers is not None or scheduler is not None:
            raise InputError("--workers and --scheduler are for a sweep; this is one run")
        else:
            code = _resume(run, steps, epochs, as_json=as_json, quiet=quiet)
    except KeyboardInterrupt as error:
        raise typer.Abort from error
    raise typer.Exit(code)


def _resume(run: str, steps: str | None, epochs: str | None, *, as_json: bool, quiet: bool) -> int:
    from torchpure import runs

    if not runs.is_first():
        return runs.resume(run, watch(quiet=True), steps=steps, epochs=epochs).fit.code
    finished = runs.resume(run, watch(quiet=quiet), steps=steps, epochs=epochs, note=lambda text: print_error(text, 0))
    return report_run(runs.read_run(finished.directory).config, finished, as_json=as_json, quiet=quiet)
