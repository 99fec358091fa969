"""Draw docs/architecture.svg: the layers that import-linter keeps, and the caption of each package.

python docs/draw_architecture.py
"""

import ast
import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
WIDTH, ROW, GAP, EDGE = 1080, 62, 10, 24  # pixels
COLOURS = ("#e8f0fe", "#fef7e0", "#e6f4ea", "#fce8e6", "#f3e8fd", "#e0f7fa", "#f1f3f4", "#fff3e0", "#ede7f6")


def layers() -> list[list[str]]:
    """Read the layers of the whole package, the highest first."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(c for c in config["tool"]["importlinter"]["contracts"] if c.get("containers") == ["torchpure"])
    rows = [[name.strip(" ()") for name in row.split("|")] for row in contract["layers"]]
    return [[name for name in row if (ROOT / "torchpure" / name / "__init__.py").exists()] for row in rows]


def caption(package: Path) -> str:
    """Return the first sentence of a package's docstring."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0].split(". ")[0].rstrip(".")


def rooms(package: Path) -> list[str]:
    """List the packages inside a package."""
    return sorted(path.parent.name for path in package.glob("*/__init__.py"))


def _wrapped(words: str, width: int) -> list[str]:
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) >= width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _box(name: str, x: float, y: float, width: float, height: float, colour: str) -> list[str]:
    package = ROOT / "torchpure" / name
    letters = int(width / 6.6)
    inside = " · ".join(rooms(package))
    lines = [*_wrapped(caption(package), letters), *([] if not inside else _wrapped(inside, letters))]
    marks = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{colour}" stroke="#9aa0a6"/>']
    marks.append(f'<text x="{x + 10}" y="{y + 19}" font-weight="bold">{escape(name)}</text>')
    marks += [
        f'<text x="{x + 10}" y="{y + 36 + 14 * i}" font-size="12" fill="#3c4043">{escape(line)}</text>'
        for i, line in enumerate(lines)
    ]
    return marks


def _height(row: list[str], width: float) -> int:
    longest = 0
    for name in row:
        package = ROOT / "torchpure" / name
        letters = int(width / 6.6)
        inside = rooms(package)
        longest = max(
            longest,
            len(_wrapped(caption(package), letters)) + len(_wrapped(" · ".join(inside), letters)) * bool(inside),
        )
    return 32 + 14 * longest


def draw() -> str:
    """Return the picture: a layer imports only from layers below it."""
    marks, y = [], EDGE
    for number, row in enumerate(filter(None, layers())):
        width = (WIDTH - 2 * EDGE - GAP * (len(row) - 1)) / len(row)
        height = _height(row, width)
        for i, name in enumerate(row):
            marks += _box(name, EDGE + i * (width + GAP), y, width, height, COLOURS[number % len(COLOURS)])
        y += height + GAP
    box = f'viewBox="0 0 {WIDTH} {y + EDGE}" font-family="sans-serif" font-size="14"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y + EDGE}" fill="white"/>', *marks, "</svg>"]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "architecture.svg").write_text(draw(), encoding="utf-8")
