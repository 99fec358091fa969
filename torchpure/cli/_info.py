"""`torchpure info`: what a run or a file is."""

import json
from typing import Annotated, Any

import typer

from ._output import print_output, printable

MAX_LISTED = 20


def info(
    path: Annotated[
        str, typer.Argument(metavar="RUN|PATH", help="A run, sweep, checkpoint, data file or .safetensors.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a run, a sweep, a checkpoint, a data file or a file of parameters is.

    torchpure info runs/2-sin-x-2-pi
    """
    from torchpure.runs import info as describe

    described = describe(path)
    if as_json:
        print_output(json.dumps(described))
        return
    width = max(map(len, described))
    lines = [f"{name.replace('_', ' '):<{width}}  {shown(value)}" for name, value in described.items()]
    print_output("\n".join(lines))


def shown(value: Any) -> str:
    """Show a value in one line: of a long list, its first entries and the number of the others."""
    if isinstance(value, dict):
        value = [f"{name} {'-' if text is None else text}" for name, text in value.items()]
    if isinstance(value, list):
        more = f", and {len(value) - MAX_LISTED} more" if len(value) > MAX_LISTED else ""
        value = ", ".join(map(str, value[:MAX_LISTED])) + more
    if isinstance(value, float):
        value = f"{value:.4g}"
    return "-" if value is None else printable(str(value))
