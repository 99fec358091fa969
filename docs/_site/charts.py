"""Charts of the measured figures: the ratios of the table in docs/benchmarks.md, as bars."""

import math
import re
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

PAGE = Path(__file__).parents[1] / "benchmarks.md"
WIDTH, LEFT, ROW, EDGE = 900, 430, 22, 20  # pixels
LOW, HIGH = -3.2, 0.6  # decimal logarithms of the ratios at the left and the right end


class Bar(NamedTuple):
    """A measured ratio: the time of torchpure over that of a peer."""

    figure: str
    against: str
    ratio: float


def bars(text: str) -> list[Bar]:
    """Read the rows of the table that have one ratio. An empty cell means what stands above it."""
    found: list[Bar] = []
    figure = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| ") or len(cells) != 7:
            continue
        figure = re.sub("`", "", cells[0]) or figure
        if re.fullmatch(r"\d+(\.\d+)?", cells[5]) and cells[3] and figure != "figure":
            found.append(Bar(figure, cells[3], float(cells[5])))
    return found


def draw(rows: list[Bar]) -> str:
    """Return the chart. The line is at 1: bars to the left of it are faster than the peer."""
    height = ROW * len(rows) + 3 * EDGE
    marks = [f'<rect width="{WIDTH}" height="{height}" fill="white"/>', *_scale(height)]
    for number, row in enumerate(rows):
        y = EDGE + ROW * number
        start, end = sorted((_x(1), _x(row.ratio)))
        colour = "#3949ab" if row.ratio <= 1 else "#b3261e"
        marks.append(f'<text x="8" y="{y + 15}">{escape(f"{row.figure}: {row.against}"[:62])}</text>')
        marks.append(f'<rect x="{start}" y="{y + 4}" width="{max(end - start, 1):.1f}" height="14" fill="{colour}"/>')
        marks.append(f'<text x="{WIDTH - 50}" y="{y + 15}">{row.ratio:g}</text>')
    box = f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>'
    return "\n".join([head, *marks, "</svg>"]) + "\n"


def _scale(height: int) -> list[str]:
    return [
        f'<line x1="{_x(ratio)}" y1="{EDGE}" x2="{_x(ratio)}" y2="{height - EDGE}" stroke="#5f6368" '
        f'stroke-width="{2 if ratio == 1 else 0.5}"/><text x="{_x(ratio) - 10}" y="{height - 4}">{ratio}</text>'
        for ratio in (0.001, 0.01, 0.1, 1, 3)
    ]


def _x(ratio: float) -> float:
    place = (min(max(math.log10(ratio), LOW), HIGH) - LOW) / (HIGH - LOW)
    return round(LEFT + place * (WIDTH - 60 - LEFT), 1)


def with_chart(text: str) -> str:
    """Return the page of benchmarks with the chart under the line that says when to use it."""
    title, use, rest = text.split("\n\n", 2)
    picture = "![Ratios of times, here over the peer: bars left of the line at 1 are faster](benchmarks.svg)"
    caption = (
        "Ratio of the time here and the time of the peer, on a logarithmic scale. Left of the thick line: faster here."
    )
    return f"{title}\n\n{use}\n\n{picture}\n\n{caption}\n\n{rest}"
