"""The pages about what is inside: for each package of torchpure a picture of its place, and a table of its files.

The first part of each page is written by hand, in docs/inside/.
"""

import ast
import re
import runpy
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "torchpure"
SOURCE = "https://github.com/torchpure/torchpure/blob/main/torchpure"
ARCHITECTURE = runpy.run_path(str(ROOT / "docs" / "draw_architecture.py"))
WIDTH, EDGE, GAP = 860, 20, 12  # pixels
_IMPORT = re.compile(r"^\s*from torchpure(?:\.(\w+)[\w.]*)? import ([^(\n]*)", re.MULTILINE)


def packages() -> list[str]:
    """Return the packages of torchpure, the highest first."""
    return [name for row in ARCHITECTURE["layers"]() for name in row]


def caption(path: Path) -> str:
    """Return the first line of the docstring of a file or of a package."""
    path = path / "__init__.py" if path.is_dir() else path
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


@cache
def imports() -> dict[str, set[str]]:
    """Return, for each package, the packages of torchpure that its files import."""
    found: dict[str, set[str]] = {name: set() for name in packages()}
    for name, used in found.items():
        for file in (PACKAGE / name).rglob("*.py"):
            for package, names in _IMPORT.findall(file.read_text(encoding="utf-8")):
                used.update([package] if package else re.findall(r"\w+", names))
        used &= {*found} - {name}
    return found


def draw(name: str) -> str:
    """Return the picture of one package: who uses it above, its parts in the middle, what it uses below."""
    used = imports()
    above = [other for other in packages() if name in used[other]]
    below = [other for other in packages() if other in used[name]]
    parts = sorted(path.parent.name for path in (PACKAGE / name).glob("*/__init__.py"))
    parts = parts or sorted(path.stem for path in (PACKAGE / name).glob("_*.py") if path.stem != "__init__")
    marks, y = [], EDGE
    rows = (("is used by", above, "#f1f3f4"), (f"{name}: its parts", parts, "#e8f0fe"), ("uses", below, "#f1f3f4"))
    for title, names, colour in rows:
        marks.append(f'<text x="{EDGE}" y="{y + 14}" font-weight="bold">{escape(title)}</text>')
        y += 24
        drawn, y = _boxes(names or ["nothing"], y, colour)
        marks += drawn
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="14">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="white"/>', *marks, "</svg>"]) + "\n"


def _boxes(names: list[str], y: int, colour: str) -> tuple[list[str], int]:
    marks, x = [], EDGE
    for name in names:
        width = 9 * len(name) + 20
        if x + width > WIDTH - EDGE:
            x, y = EDGE, y + 40
        marks.append(f'<rect x="{x}" y="{y}" width="{width}" height="30" rx="6" fill="{colour}" stroke="#5f6368"/>')
        marks.append(f'<text x="{x + 10}" y="{y + 20}">{escape(name)}</text>')
        x += width + GAP
    return marks, y + 30 + EDGE


def render(name: str) -> str:
    """Return the picture and the table of one package."""
    lines = [f"![The packages around {name}, and its parts]({name}.svg)", "", "| file | what it holds |", "|---|---|"]
    for path in sorted((PACKAGE / name).iterdir()):
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists():
            text = caption(path).replace("|", "\\|")
            lines.append(f"| [`{path.name}`]({SOURCE}/{name}/{path.name}) | {text} |")
    return "\n".join([*lines, "", "[All layers, and the way of a call through them](../architecture.md).", ""])


def stub(name: str) -> str:
    """Return the first part of the page of a package for which nobody has written one."""
    return f"# Inside `{name}`\n\nWhen to use this: you work on this package. {caption(PACKAGE / name)}\n"
