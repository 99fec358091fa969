"""`torchpure report`: one HTML page about one run or several."""

from typing import Annotated

import typer

from ._output import Force, print_output


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs, or of one sweep.")],
    output: Annotated[str, typer.Option(metavar="FILE", help="The page to write.")] = "report.html",
    force: Force = False,
) -> None:
    """Write one HTML page about runs, side by side; it needs no network.

    torchpure report runs/a runs/b --output ab.html
    """
    from torchpure.runs import report as write_report

    path = write_report(*runs, output=output, force=force)
    print_output(f"{len(runs)} run{'s' * (len(runs) != 1)}, {path.stat().st_size / 1e6:.1f} MB\n{path}", "the page")
