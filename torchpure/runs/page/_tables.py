"""HTML tables with captions and headers; rows that differ between runs are marked, by text too."""

from collections.abc import Mapping, Sequence
from itertools import count

from ._text import escaped, number

Comparison = Mapping[str, Sequence[object]]  # a row's name -> a value for each run


def table(caption: str, header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a table with one row of headers."""
    head = "".join(f'<th scope="col"><bdi>{escaped(name)}</bdi></th>' for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return _scrolled(caption, f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>")


def comparison(caption: str, runs: Sequence[str], rows: Comparison, *, marked: bool) -> str:
    """Return a table with a column for each run; if `marked`, rows that differ are marked."""
    head = "".join(f'<th scope="col"><bdi>{escaped(name)}</bdi></th>' for name in runs)
    body = "".join(_compared(name, values, marked=marked) for name, values in rows.items())
    return _scrolled(caption, f'<thead><tr><th scope="col">name</th>{head}</tr></thead><tbody>{body}</tbody>')


def sortable(caption: str, header: Sequence[object], rows: Sequence[Sequence[object]], key: str) -> str:
    """Return a table whose headers are buttons that sort it."""
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" data-sort="{index}"><bdi>{escaped(name)}</bdi> '
        '<span class="arrow" aria-hidden="true"></span></button></th>'
        for index, name in zip(count(), header, strict=False)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return _scrolled(caption, f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>", f' id="{key}"') + (
        f'<p class="hidden" role="status" id="{key}-status"></p>'
    )


def _compared(name: str, values: Sequence[object], *, marked: bool) -> str:
    differs = marked and any(value != values[0] for value in values)
    mark = '<span class="mark">≠<span class="hidden"> differs</span></span>' if differs else ""
    start = '<tr class="differs">' if differs else "<tr>"
    return f'{start}<th scope="row"><bdi>{escaped(name)}</bdi>{mark}</th>{"".join(map(_cell, values))}</tr>'


def _cell(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="number" data-number="{value!r}">{escaped(number(value))}</td>'
    return f"<td><bdi>{escaped(number(value))}</bdi></td>"


def _scrolled(caption: str, content: str, attributes: str = "") -> str:
    text = escaped(caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text}">'
        f"<table{attributes}><caption>{text}</caption>{content}</table></div>"
    )
