"""Run the notebooks of docs/notebooks, and write a page with output and pictures for each.

python docs/run_notebooks.py [NAME …]

A notebook is a file of Python with cells (jupytext's `py:percent`). The site shows the page NAME.md and its pictures,
NAME-1.png and so on. The executed notebook is left in build/notebooks/, for Jupyter.
"""

import base64
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parent
FOLDER = DOCS / "notebooks"
BUILT = DOCS.parent / "build" / "notebooks"
MAX_SECONDS = 600
SOURCE = "https://github.com/torchpure/torchpure/blob/main/docs/notebooks"
SET_UP = """
import warnings
%matplotlib inline
%config InlineBackend.print_figure_kwargs = {'bbox_inches': None, 'dpi': 96}
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm wants widgets
"""
_CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)


class Cell(NamedTuple):
    """A cell of a notebook: its text, whether that is Markdown, and the text for readers who do not see its picture."""

    text: str
    markdown: bool = False
    alt: str = ""
    parameters: bool = False


def cells(path: Path) -> list[Cell]:
    """Read the cells of a notebook without jupytext, for the pages and the tests."""
    before, *parts = _CELL.split(path.read_text(encoding="utf-8"))
    if before.strip():
        raise ValueError(f"{path.name}: there is text before the first cell")
    found = []
    for head, body in zip(parts[::2], parts[1::2], strict=True):
        alt = re.search(r'alt="(.*?)"', head)
        if "[markdown]" in head:
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            found.append(Cell("\n".join(lines), markdown=True))
        else:
            found.append(Cell(body.strip("\n"), alt=alt[1] if alt else "", parameters='"parameters"' in head))
    return found


def run(path: Path) -> list[list[Any]]:
    """Run a notebook in a kernel of its own, keep the result in build/, and return the outputs of its cells."""
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook = jupytext.read(path, fmt="py:percent")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SET_UP))
    NotebookClient(notebook, timeout=MAX_SECONDS, kernel_name="python3").execute(cwd=str(BUILT))
    del notebook.cells[0]
    nbformat.write(notebook, BUILT / f"{path.stem}.ipynb")
    return [cell.get("outputs", []) for cell in notebook.cells]


def page(name: str, written: list[Cell], outputs: list[list[Any]]) -> tuple[str, dict[str, bytes]]:
    """Return the page of a notebook, and its pictures by name."""
    parts, pictures = [], {}
    for cell, results in zip(written, outputs, strict=True):
        parts.append(cell.text if cell.markdown else f"```python\n{cell.text}\n```")
        if printed := "".join(printed_by(results)).rstrip():
            parts.append(f"```text\n{printed}\n```")
        for picture in pictures_of(results):
            if not cell.alt:
                raise ValueError(f'{name}: a cell with a picture needs alt="…" in its first line: {cell.text[:60]!r}')
            file = f"{name}-{len(pictures) + 1}.png"
            pictures[file] = picture
            parts.append(f"![{cell.alt}]({file})")
    note = f"This page is made from [`{name}.py`]({SOURCE}/{name}.py), a notebook that"
    return "\n\n".join([*parts, f"{note} `jupytext` opens in Jupyter. `make notebooks` runs it."]) + "\n", pictures


def printed_by(results: list[Any]) -> Iterator[str]:
    """Yield what a cell printed. A warning is an error: a page must not show one."""
    for result in results:
        if result["output_type"] == "stream" and result["name"] == "stdout":
            yield result["text"]
        elif result["output_type"] == "stream":
            raise ValueError(f"a cell wrote on standard error: {result['text'][:400]}")


def pictures_of(results: list[Any]) -> Iterator[bytes]:
    """Yield the pictures of a cell."""
    for result in results:
        if "image/png" in result.get("data", {}):
            yield base64.b64decode(result["data"]["image/png"])


def main(names: list[str]) -> None:
    """Run the notebooks of these names, or all."""
    BUILT.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("*.py")):
        if names and path.stem not in names:
            continue
        text, pictures = page(path.stem, cells(path), run(path))
        for old in FOLDER.glob(f"{path.stem}-*.png"):
            old.unlink()
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        for file, content in pictures.items():
            (FOLDER / file).write_bytes(content)
        sys.stdout.write(f"{path.with_suffix('.md').relative_to(DOCS.parent)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
