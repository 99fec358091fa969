"""`torchpure export`: a run's model for programs without torchpure."""

from typing import Annotated

import typer

from ._output import Force, print_output


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    form: Annotated[str, typer.Option("--format", metavar="NAME", help="torch-export or onnx.")],
    output: Annotated[str, typer.Option(metavar="FILE", help="The file to write, such as model.pt2 or model.onnx.")],
    compare: Annotated[
        str | None, typer.Option(metavar="FILE", help="Data to compare on. (default: the test data of the run)")
    ] = None,
    force: Force = False,
) -> None:
    """Export the model of a run, and compare it with the run's own.

    torchpure export runs/2-sin-x-2-pi --format torch-export --output sine.pt2
    """
    from torchpure.runs import export as export_model

    done = export_model(run, form, output, compare=compare, force=force)
    print_output(f"largest difference {done.difference:.3e} on {done.rows} rows\n{done.path}", "the file")
