"""`torchpure ls`: a table of runs."""

import io
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ._output import print_output, printable

if TYPE_CHECKING:
    from torchpure.runs import Listed

WIDTH = 160  # of the table where stdout is no terminal


def ls(
    folder: Annotated[str, typer.Argument(metavar="[DIR]", help="A folder of runs.")] = "runs",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the runs of a folder, the newest first."""
    from torchpure.runs import list_runs

    found = list_runs(folder)
    if as_json:
        print_output(json.dumps([run._asdict() for run in found]))
    elif found:
        print_output(_table(found))
    else:
        print_output(f"no runs in {folder}")


def _table(found: "Sequence[Listed]") -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", overflow="fold")
    table.add_column("target", overflow="ellipsis", no_wrap=True)
    table.add_column("status")
    for name in ("steps", "train loss", "test loss", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in found:
        target = run.target if run.problem is None else run.problem
        status = run.status if run.members is None else f"{run.status} of {run.members}"
        cells = (run.name, target, status, _number(run.steps), _loss(run.train_loss), _loss(run.test_loss))
        table.add_row(*(Text(printable(cell)) for cell in (*cells, age(run.age))))
    terminal = sys.stdout.isatty()
    console = Console(file=io.StringIO(), width=None if terminal else WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().strip("\n").splitlines())


def age(seconds: float) -> str:
    """Say in one unit how long ago something was.

    >>> age(5), age(200), age(90_000)
    ('5 s', '3 min', '25 h')
    """
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.3e}"
