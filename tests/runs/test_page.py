"""Parts of a page: what is left out of long curves, how numbers and texts are shown, and tables of sweeps."""

import numpy as np
import pytest

from torchpure.runs.page import PageSweep
from torchpure.runs.page._curves import curves, groups
from torchpure.runs.page._figure import Figure, Series, chart, thinned
from torchpure.runs.page._sweeps import sweep_figures, sweep_table
from torchpure.runs.page._tables import comparison
from torchpure.runs.page._text import clean, label


def test_a_long_curve_keeps_its_ends_and_its_peaks():
    x = np.arange(100_000)
    y = np.sin(x / 5000)
    y[[777, 55_555]] = (9.0, -9.0)
    y[500] = np.nan
    part = thinned(Series("a", x, y, 0))
    assert len(part.y) <= 2000
    assert {0, 777, 55_555, 99_999} <= {*part.x.tolist()}
    assert (np.diff(part.x) > 0).all()
    points = thinned(Series("a", x, y, 0, mode="markers"))
    assert len(points.y) == 2000


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([1.0, 100.0], True),
        ([1.0, 2.0], False),
        ([0.0, 100.0], False),
        ([-1.0, 100.0], False),
        ([np.nan, np.inf], False),
    ],
)
def test_positive_numbers_of_a_large_range_are_drawn_on_a_log_scale(values, log):
    drawn = chart("c", Figure("t", "x", "y", [Series("a", np.arange(2), np.array(values), 0)]))
    assert drawn["logY"] is log
    assert drawn["series"][0]["y"] == [value if np.isfinite(value) else None for value in values]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("a\x1b[2J\x00", "a\ufffd[2J\ufffd"), ("x\u202egnp.exe", "x\ufffdgnp.exe"), ("\ud800", "\ufffd"), ("y" * 300, "y" * 197 + "...")],
)  # fmt: skip
def test_texts_are_cleaned(text, cleaned):
    assert clean(text) == cleaned
    cleaned.encode()
    assert label(f"<b>{text}") == f"&lt;b&gt;{cleaned if len(text) < 200 else 'y' * 194 + '...'}"


def test_rows_that_differ_are_marked_by_text_too():
    table = comparison("c", ["a", "b"], {"same": [1, 1], "other": [1, 2.5]}, marked=True)
    assert table.count("differs") == 2
    assert '<tr class="differs"><th scope="row"><bdi>other</bdi>' in table
    assert "differs" not in comparison("c", ["a", "b"], {"other": [1, 2]}, marked=False)


def test_metrics_make_one_chart_of_losses_one_of_each_other_and_one_of_each_group():
    step = np.arange(3)
    first = {"step": step, "loss": step + 1.0, "norms/a": step + 2.0, "norms/b": step + 3.0}
    second = {"step": step, "loss": step + 1.0, "accuracy": np.array([np.nan, 0.5, np.nan])}
    runs = [("r", first), ("s", second)]
    found = list(curves(runs, [(2.0, 0.5), None]))
    assert [figure.title for figure in found] == ["Loss", "accuracy"]
    assert [part.name for part in found[0].series] == ["r", "s", "r: test loss at the end"]
    assert (found[1].series[0].x.tolist(), found[1].series[0].y.tolist()) == ([1], [0.5])
    (group,) = groups(runs)
    assert (group.title, [part.name for part in group.series]) == ("norms: r", ["a", "b"])


def test_a_sweep_lists_the_lowest_losses_first_and_draws_what_varies():
    rows = [(0.1 * 10**-number, "same", 7, float(number), True) for number in range(3000)]
    sweep = PageSweep(
        "s", ("learning_rate", "text", "width", "loss", "done"), [*rows[::-1], (None, None, 7, None, None)]
    )
    table = sweep_table(*sweep[:3], "t0")
    assert table.count("<tr>") == 2001
    assert table.index('data-number="0.0"') < table.index('data-number="1.0"')
    assert "The first 2000 of 3001 runs are listed." in table
    clipped = PageSweep("s", sweep.columns, rows[:100])
    (figure,) = sweep_figures(*clipped[:3])
    assert (figure.title, figure.log_x) == ("loss over learning_rate: s", True)
    assert list(sweep_figures("s", ("width",), [(1,), (2,)])) == []
