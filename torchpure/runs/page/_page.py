"""One HTML file about runs: text, tables, charts, style and scripts; a policy forbids every request."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ._curves import Metrics, curves, groups
from ._figure import Figure, chart, figure_html
from ._fits import Confusion, Fitted, fit_figures, residual_rows
from ._sweeps import sweep_curves, sweep_figures, sweep_table
from ._tables import comparison
from ._text import escaped


class PageRun(NamedTuple):
    """What a page shows of one run; texts may be hostile."""

    name: str
    result: Mapping[str, object]  # status, losses, timing
    config: Mapping[str, object]
    versions: Mapping[str, object]
    metrics: Metrics
    end: tuple[float, float] | None  # step and test loss at the end
    fitted: Sequence[Fitted]  # one for each target
    confusion: Confusion | None  # of classes
    note: str  # why there is no fit


class PageSweep(NamedTuple):
    """The results of a sweep; texts may be hostile."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    curves: Mapping[str, np.ndarray] = MappingProxyType({})  # of the best members: see `sweep_curves`


class Page(NamedTuple):
    """What a page is about."""

    runs: Sequence[PageRun]
    sweeps: Sequence[PageSweep]


_Rows = Mapping[str, object]  # what a page says about one run, by name


class _Section(NamedTuple):
    title: str
    html: str
    charts: list[dict[str, Any]]


def write_page(page: Page, plotly: str) -> str:
    """Return the HTML of a page."""
    sections = [section for section in _sections(page) if section.html]
    title = "Report on " + ", ".join([*(run.name for run in page.runs), *(sweep.name for sweep in page.sweeps)])
    links = "".join(f'<li><a href="#s{index}">{part.title}</a></li>' for index, part in enumerate(sections))
    body = "".join(
        f'<section aria-labelledby="s{index}"><h2 id="s{index}" tabindex="-1">{part.title}</h2>{part.html}</section>'
        for index, part in enumerate(sections)
    )
    own = _asset("page.js")
    charts = _json([chart for part in sections for chart in part.charts])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_policy(plotly, own)}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f'<link rel="icon" href="data:,"><title>{escaped(title)}</title><style>{_asset("page.css")}</style></head>'
        f'<body><a class="skip" href="#main">Skip to the results</a><header><h1>{escaped(title)}</h1>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header><main id="main" tabindex="-1">'
        "<noscript><p>Charts and sorting need JavaScript; all tables are here without it.</p></noscript>"
        '<p id="keys" class="keys">Charts: drag to zoom, double-click to reset, point to read values. By keyboard, on '
        "a chart: + and - zoom, arrows move, 0 resets.</p>"
        f"{body}</main>"
        f'<script type="application/json" id="charts">{charts}</script>'
        f"<script>{plotly}</script><script>{own}</script></body></html>\n"
    )


def _sections(page: Page) -> Iterator[_Section]:
    names = [run.name for run in page.runs]
    numbered = iter(range(1_000_000))
    metrics = [(run.name, run.metrics) for run in page.runs]

    def figures(title: str, found: Iterator[Figure], before: str = "") -> _Section:
        keyed = [(f"c{next(numbered)}", figure) for figure in found]
        html = "".join(figure_html(key, figure) for key, figure in keyed)
        return _Section(
            title, before + (html and f'<div class="figures">{html}</div>'), [chart(*pair) for pair in keyed]
        )

    yield _Section("Results", _compare("Results", names, [run.result for run in page.runs]), [])
    yield figures("Curves", curves(metrics, [run.end for run in page.runs]))
    fitted = (figure for name, fit in _fits(page.runs) for figure in fit_figures(name, fit))
    yield figures("Fit and residuals", fitted, _residuals(page.runs))
    yield figures("By layer", groups(metrics))
    swept = (figure for sweep in page.sweeps for figure in _of_sweep(sweep))
    tables = (sweep_table(*sweep[:3], f"t{i}") for i, sweep in enumerate(page.sweeps))
    yield figures("Sweeps", swept, "".join(tables))
    configs = [run.config for run in page.runs]
    versions = [run.versions for run in page.runs]
    yield _Section("Configuration", _compare("Configuration", names, configs, marked=True), [])
    yield _Section("Versions", _compare("Versions and commands", names, versions, marked=True), [])


def _of_sweep(sweep: PageSweep) -> Iterator[Figure]:
    yield from sweep_curves(sweep.name, sweep.curves)
    yield from sweep_figures(*sweep[:3])


def _compare(
    caption: str, names: Sequence[str], values: Sequence[Mapping[str, object]], *, marked: bool = False
) -> str:
    rows = dict.fromkeys(name for value in values for name in value)
    if not rows:
        return ""
    marks = "; rows that differ between runs are marked ≠" if marked and len(names) > 1 else ""
    compared = {name: [value.get(name) for value in values] for name in rows}
    return comparison(f"{caption}{marks}", names, compared, marked=marked)


def _fits(runs: Sequence[PageRun]) -> list[tuple[str, Fitted]]:
    """Return all fits with a title: the run, and the target if it has several."""
    return [
        (run.name if len(run.fitted) == 1 else f"{run.name}, {fit.target}", fit) for run in runs for fit in run.fitted
    ]


def _residuals(runs: Sequence[PageRun]) -> str:
    notes = "".join(
        f'<p class="note"><bdi>{escaped(run.name)}</bdi>: {escaped(run.note)}</p>' for run in runs if run.note
    )
    fits = _fits(runs)
    errors = _compare("Residuals", [name for name, _ in fits], [residual_rows(fit) for _, fit in fits])
    return notes + errors + "".join(_confusion(run.name, run.confusion) for run in runs if run.confusion)


def _confusion(run: str, found: Confusion) -> str:
    counts = {f"true {name}": row for name, row in zip(found.classes, found.counts, strict=True)}
    names = [f"predicted {name}" for name in found.classes]
    return comparison(f"Test points by class: {run}", names, counts, marked=False)


def _policy(*scripts: str) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    # plotly makes its style sheet by script, so styles cannot be listed by hash
    rules = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
    return f"<meta http-equiv=\"Content-Security-Policy\" content=\"{rules}; base-uri 'none'; form-action 'none'\">"


def _json(value: object) -> str:
    """Write JSON that cannot end its script element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return resources.files("torchpure.runs.page").joinpath(name).read_text(encoding="utf-8")
