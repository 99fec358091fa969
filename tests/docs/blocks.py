"""The code blocks of a page, and what the page says they print."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
_PLACE = re.compile(r"line \d+ of [\w-]+\.(?:py|md)|[\w-]+\.(?:py|md):\d+")  # a message names the line of the user


class Block(NamedTuple):
    """A block of Python, the line above it, and the output under it, if the page shows one."""

    code: str
    line: int
    output: str | None


def blocks(text: str) -> list[Block]:
    """Return the blocks of Python of a page."""
    return [Block(found[1], text.count("\n", 0, found.start(1)), found[2]) for found in _BLOCK.finditer(text)]


def without_places(text: str) -> list[str]:
    """Return the lines of a text, without the numbers of lines of code in it: a page shows those of a user's file."""
    return [_PLACE.sub("line … of your file", line) for line in text.splitlines()]


def outputs(page: Path, space: dict[str, Any]) -> Iterator[tuple[Block, str]]:
    """Run the blocks of a page from top to bottom in one namespace, and yield each with what it prints."""
    for block in blocks(page.read_text(encoding="utf-8")):
        printed = io.StringIO()
        code = compile("\n" * block.line + block.code, str(page), "exec")  # a traceback shows the line of the page
        with contextlib.redirect_stdout(printed):
            exec(code, space)
        yield block, printed.getvalue()


def check_page(page: Path, space: dict[str, Any]) -> int:
    """Run a page, compare what its blocks print with what it shows, and return how many blocks it has."""
    count = 0
    for block, printed in outputs(page, space):
        count += 1
        if block.output is not None:
            assert without_places(printed) == without_places(block.output), f"{page.name}, line {block.line}"
    return count
