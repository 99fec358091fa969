"""`torchpure predict`: apply a saved run to the rows of a data file."""

from typing import Annotated

import typer

from ._output import Force, print_output


def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    source: Annotated[
        str, typer.Option("--input", metavar="FILE", help="Rows to predict, a data file; columns by name.")
    ],
    output: Annotated[
        str, typer.Option(metavar="FILE", help="The new file: inputs and predictions, .csv, .parquet, .arrow or .npz.")
    ],
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column of predictions. (default: the target's name)")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only errors.")] = False,
    force: Force = False,
) -> None:
    """Predict the target for each row of a data file.

    torchpure predict runs/houses-price --input new.csv --output predicted.csv
    """
    from torchpure.runs import predict as predict_rows

    rows = predict_rows(run, source, output, column=column, force=force)
    if not quiet:
        print_output(f"{rows} row{'s' * (rows != 1)}\n{output}", "the file")
