"""The program: its commands, its exit codes, and what it says about errors."""

import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from torchpure._start import raise_at_signals
from torchpure.errors import CheckpointError, InputError, MeshError, WorkerError

from ._export import export
from ._fit import fit
from ._info import info
from ._ls import ls
from ._output import close_stdout, print_error
from ._predict import predict
from ._report import report
from ._resume import resume
from ._signals import end_quietly, interruptible
from ._sweep import sweep

USAGE, INTERRUPTED, TERMINATED = 2, 130, 143
_FLAGS = ("--json", "--quiet", "--force", "--help", "--version")

app = typer.Typer(
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Functional PyTorch from the command line.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code: 0, 1 diverged, 2 bad input, 130 interrupted, 143 terminated."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    raise_at_signals()
    with interruptible() as interrupted:
        try:
            code = app(args=_escape_leading_minus(words), prog_name="torchpure", standalone_mode=False) or 0
        except (Exception, KeyboardInterrupt) as error:  # an import that is interrupted may raise anything
            code = _report(error, interrupted(), words)
    if arguments is None and code in (INTERRUPTED, TERMINATED):
        end_quietly()
    return code


def _report(error: BaseException, signal_number: int, words: Sequence[str]) -> int:
    """Print one line about an error, and return the exit code; raise an error that is a fault of this program."""
    kept = _notes(error) or "nothing was saved"
    if signal_number or isinstance(error, typer.Abort | KeyboardInterrupt):
        name, code = ("terminated", TERMINATED) if signal_number == signal.SIGTERM else ("interrupted", INTERRUPTED)
        return print_error(f"{name}; {kept}", code)
    match error:
        case InputError() | CheckpointError() | MeshError() | WorkerError():
            return print_error("; ".join(filter(None, (str(error), _notes(error)))), USAGE)
        case typer.TyperException():
            return print_error(_wrong_number(error, words) or error.format_message(), USAGE)
        case BrokenPipeError():
            close_stdout()
            return USAGE
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            return print_error(f"{place}{(error.strerror or str(error)).lower()}; {kept}", USAGE)
        case MemoryError():
            return print_error("out of memory; try fewer points or a smaller --hidden", USAGE)
    raise error


def _wrong_number(error: typer.TyperException, words: Sequence[str]) -> str:
    """Say which option wants a number and what came; an empty text for another error."""
    message, options = error.format_message(), getattr(getattr(error, "param", None), "opts", ())
    wanted = next((kind for kind in ("integer", "number") if f"should be a valid {kind}" in message), "")
    if not wanted:
        return ""
    values = [
        (option, word.removeprefix(f"{option}=") if "=" in word else after)
        for word, after in zip(words, [*words[1:], ""], strict=True)
        for option in options
        if word == option or word.startswith(f"{option}=")
    ]
    article = "an" if wanted == "integer" else "a"
    return f"{values[-1][0]}: wanted {article} {wanted}, got {values[-1][1][:60]!r}" if values else ""


def _notes(error: BaseException) -> str:
    """Return what a run has noted about what it saved before the error."""
    notes = [*getattr(error, "__notes__", ()), *getattr(error.__cause__, "__notes__", ())]
    return "; ".join(map(str, notes))


def _escape_leading_minus(words: list[str]) -> list[str]:
    """Put a space before an expression such as `-x**2`, which typer would read as an option."""
    escaped: list[str] = []
    for word in words:
        before = escaped[-1] if escaped else ""
        is_value = before.startswith("--") and "=" not in before and before not in _FLAGS
        is_expression = word.startswith("-") and not word.startswith("--") and word not in ("-", "-h")
        escaped.append(f" {word}" if is_expression and not is_value else word)
    return escaped


def _show_version(wanted: bool) -> None:
    if wanted:
        from torchpure import __version__

        print(f"torchpure {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


for command in (fit, sweep, resume, predict, report, ls, info, export):
    app.command()(command)
