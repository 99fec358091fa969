"""Write docs/torchpure.1, the manual page: what `--help` says of each command, in the language of man.

python docs/man.py
"""

import re
import textwrap
from pathlib import Path
from typing import Any

from typer.main import get_command

from torchpure import __version__
from torchpure.cli._app import app

PAGE = Path(__file__).with_name("torchpure.1")
NAME = "torchpure"
END = r"""
.SH EXIT STATUS
.TP
0
The command did what it was asked.
.TP
1
The loss stopped being finite.
.TP
2
The input or an option is wrong; one line on standard error says what to do.
.TP
130, 143
The command was interrupted, or terminated. What was saved is complete.
.SH ENVIRONMENT
.TP
TORCHPURE_CACHE
The folder of compiled programs (\(ti/.cache/torchpure).
.TP
TORCHPURE_CACHE_MB
Its greatest size in megabytes (512).
.TP
TORCHPURE_PROGRESS
0: never show the stage of a long compilation.
.TP
CXX
The C++ compiler (g++).
.SH FILES
.TP
runs/
Saved runs, one folder each: config.json, metrics, parameters and pictures.
""".lstrip()


def escape(text: str) -> str:
    r"""Escape what man would read as a request or as a special character.

    >>> escape("-x's\\n")
    "\\-x's\\en"
    """
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("~", r"\(ti").replace("^", r"\(ha")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def paragraph(text: str) -> list[str]:
    """Return the lines of a paragraph, short enough for every reader of the source."""
    return [escape(line) for line in textwrap.wrap(" ".join(text.split()), 100, break_long_words=False)]


def option(parameter: Any) -> list[str]:
    """Return the entry of an argument or an option: its names and its value, then its help."""
    value = "" if getattr(parameter, "is_flag", False) else parameter.metavar or ""
    if parameter.param_type_name == "argument":
        head = rf"\fI{escape(value)}\fR"
    else:
        names = ", ".join(rf"\fB{escape(name)}\fR" for name in parameter.opts)
        head = rf"{names} \fI{escape(value)}\fR" if value else names
    return [".TP", head, *paragraph(parameter.help or "")]


def command(name: str, described: Any) -> list[str]:
    """Return the part of one command: what it does, its examples, its arguments and options."""
    text, *examples = [part for part in (described.help or "").split("\n\n") if part.strip()]
    lines = [f".SS {NAME} {name}", *paragraph(text)]
    for example in examples:
        lines += [".PP", ".RS", ".nf", escape(example.strip()), ".fi", ".RE"]
    return lines + [line for parameter in described.params for line in option(parameter)]


def page() -> str:
    """Return the whole page."""
    group: Any = get_command(app)
    lines = [f'.TH TORCHPURE 1 "" "torchpure {__version__}" "User commands"', ".SH NAME"]
    lines += [rf"{NAME} \- {escape(group.help[0].lower() + group.help[1:].rstrip('.'))}", ".SH SYNOPSIS"]
    lines += [rf"\fB{NAME}\fR \fICOMMAND\fR [\fIARGUMENTS\fR] [\fIOPTIONS\fR]", ".PP"]
    lines += [rf"\fB{NAME}\fR \fICOMMAND\fR \fB\-\-help\fR", ".SH OPTIONS"]
    lines += [line for parameter in group.params for line in option(parameter)]
    lines += [".SH COMMANDS"]
    lines += [line for name, described in group.commands.items() for line in command(name, described)]
    return "\n".join(lines) + "\n" + END


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
