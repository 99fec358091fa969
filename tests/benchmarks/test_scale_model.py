"""The tables of docs/scale-model.md are those of the model, and predictions are right where the model is."""

import re

import pytest
from daily import without

from benchmarks import _scale_measure as measure
from benchmarks import _scale_predict as predict
from benchmarks import scale_model
from benchmarks._scale_tables import TABLES
from benchmarks.simulator import Link, data_parallel_seconds

LONG = {"sweep"}
NAMES = [
    *("torch all_reduce", "torch all_gather", "torch broadcast", "torch all_to_all"),
    *("tp psum", "tp all_gather", "tp psum_scatter", "tp all_to_all", "tp ppermute"),
]
EXACT = predict.Constants(Link(2e-5, 3e-10, 1e-10), 4e-5, 9e-5, 2e-10)


def measured(ranks, constants=EXACT):
    """What the model would measure."""
    return {
        name: {str(size): predict.predict(name, size, ranks, constants) for size in measure.SIZES} for name in NAMES
    }


@pytest.mark.parametrize("name", without(LONG, TABLES))
def test_tables_of_the_page_are_what_the_model_says(name):
    text = scale_model.PAGE.read_text(encoding="utf-8")
    assert scale_model.page(text, {name: TABLES[name]()}) == text, "run `python -m benchmarks.scale_model page`"


def test_tables_of_measurements_are_on_the_page():
    text = scale_model.PAGE.read_text(encoding="utf-8")
    marks = {*re.findall(r"<!-- end of (.*?) -->", text)}
    assert marks == {*TABLES, "machine", "constants", "sizes", "predicted steps", "predicted tasks"}
    assert "\n—\n" not in text


def test_a_page_without_a_mark_is_refused():
    with pytest.raises(ValueError, match="lacks <!-- sweep --> and <!-- end of sweep -->"):
        scale_model.page("# A page\n", {"sweep": ""})


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_exact_measurements_give_the_constants_and_exact_predictions(ranks):
    found = predict.fit(measured(ranks), ranks)
    assert [*found.link, *found[1:]] == pytest.approx([*EXACT.link, *EXACT[1:]], rel=1e-6)
    rows = predict.compare(measured(ranks), ranks, found, measure.SIZES)
    assert len(rows) == len(NAMES) * len(measure.SIZES)
    assert predict.median_error(rows) == pytest.approx(1.0) and max(row.ratio for row in rows) == pytest.approx(1.0)


def test_one_process_has_no_messages():
    found = predict.fit(measured(1), 1)
    assert found.link.latency == found.link.per_byte == 0.0
    assert [found.torchs, found.ours] == pytest.approx([EXACT.torchs, EXACT.ours])


def test_processes_that_share_cores_are_slower():
    twice = predict.compare(measured(4, predict.slower(EXACT, 2.0)), 4, EXACT, measure.SIZES)
    assert [row.ratio for row in twice] == pytest.approx([0.5] * len(twice))


def test_steps_are_predicted_from_those_of_one_process():
    of = {1: {"step": {"128": 2e-3, "512": 5e-3}}, 4: {"step": {"128": 1.0, "512": 2.0}}}
    few, many = predict.compare_steps(of, {4: EXACT}, cores=2)
    call = 2 * EXACT.ours + EXACT.copy * predict.GRADIENT_BYTES
    per_row = 3e-3 / 384
    whole = data_parallel_seconds(1e-3, per_row, 512, predict.GRADIENT_BYTES, 4, 2, EXACT.link, call)
    assert (few.measured, many.measured, few.size, many.size) == (1.0, 2.0, 128, 512)
    assert many.predicted == pytest.approx(whole) and few.predicted < many.predicted


def test_tables_of_measurements_have_a_line_for_each_case():
    of = {count: measured(count) for count in scale_model.PROCESSES}
    fitted = {count: predict.fit(of[count], count) for count in of}
    assert scale_model.constants(fitted).count("\n") == 1 + 3
    assert scale_model.sizes(of, fitted, cores=2).count("\n") == 1 + 7
    assert scale_model.tasks(1e-3, {2: 1.1}).endswith("| 2 | 40 | 1,021 | 1,100 | 0.928 |")
