"""`torchpure predict`: apply a saved run to the rows of a data file."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ._output import Force, print_output


def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    source: Annotated[
        str,
        typer.Option(
            "--input", metavar="FILE", help="Rows to predict: a data file, or a folder of them; - reads CSV from stdin."
        ),
    ],
    output: Annotated[
        str, typer.Option(metavar="FILE", help="The new file, .csv, .parquet, .arrow or .npz; - writes CSV to stdout.")
    ],
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column of predictions. (default: the target's name)")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
    force: Force = False,
) -> None:
    """Predict the target for each row of a data file.

    torchpure predict runs/houses-price --input new.csv --output predicted.csv

    cat new.csv | torchpure predict runs/houses-price --input - --output - | head
    """
    from torchpure.runs import predict as predict_rows

    with _from_stdin(source) as path, _to_stdout(output) as target:
        rows = predict_rows(run, path, target, column=column, force=force)
    if not quiet and output != "-":
        print_output(f"{rows} row{'s' * (rows != 1)}\n{output}", "the file")


@contextmanager
def _from_stdin(source: str) -> Iterator[str]:
    """Yield the name of the input; stdin is copied to a file, because it is read twice."""
    if source != "-":
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin.csv"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield str(path)


@contextmanager
def _to_stdout(output: str) -> Iterator[str]:
    """Yield the name of the output, or of a file that is then copied to stdout."""
    if output != "-":
        yield output
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdout.csv"
        yield str(path)
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()
