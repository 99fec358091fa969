"""Sweeps over files that are read in blocks, with validation points, and with several targets."""

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchpure.cli import main
from torchpure.errors import InputError
from torchpure.runs import (
    SweepWatcher,
    _run,
    _sweep,
    _sweep_best,
    configure,
    load_run,
    report,
    resume_sweep,
    run,
    sweep,
)
from torchpure.runs.fits import _points

pytestmark = pytest.mark.usefixtures("here")
FILE = {"target": "data", "column": "y", "hidden": "4", "steps": 24, "batch_size": 8, "validation_points": 0.1}
SPACE = {"learning_rate": [1e-3, 1e-2], "seed": "0:2"}


@pytest.fixture(autouse=True)
def _data(here, monkeypatch):
    for module, name in ((_run, "draw_loss"), (_run, "draw_fit"), (_sweep_best, "draw_fit"), (_sweep, "draw_sweep")):
        monkeypatch.setattr(module, name, lambda path, *others: None)  # they take most of the time
    Path("data").mkdir()
    for number in range(2):
        rows = [f"{i % 7},{i % 5},{0.5 * i - 3},{i % 3}" for i in range(50 * number, 50 * number + 50)]
        Path(f"data/part-{number}.csv").write_text("\n".join(["a,b,y,z", *rows]) + "\n")


@pytest.fixture
def _in_blocks(monkeypatch):
    monkeypatch.setattr(_points, "memory_needed", lambda path, columns: 2**40)


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.parametrize("blocks", [True, False])
def test_members_equal_their_runs_also_in_their_validation_losses(blocks, request):
    if blocks:
        request.getfixturevalue("_in_blocks")
    found = sweep(FILE, SPACE, out=Path("all"))
    assert found.validation.steps[-1] == 24 and len(found.validation.steps) > 1
    for row in found.rows:
        alone = Path(f"member{row['index']}")
        fit = run(configure(FILE | {name: row[name] for name in SPACE}), alone).fit
        assert [row["train_loss"], row["test_loss"]] == pytest.approx([fit.train_loss, fit.test_loss], rel=2e-3)
        known = {
            line["step"]: line["validation_loss"]
            for line in lines(alone / "metrics.jsonl")
            if "validation_loss" in line
        }
        ours = dict(zip(found.validation.steps.tolist(), found.validation.losses[row["index"]].tolist(), strict=True))
        both = known.keys() & ours.keys()
        assert 24 in both and [ours[step] for step in both] == pytest.approx([known[step] for step in both], rel=2e-3)
        assert row["validation_loss"] == pytest.approx(ours[24], rel=1e-6)
    assert found.best == min(found.rows, key=lambda row: row["validation_loss"])


def test_the_curves_of_members_are_rows(_in_blocks):
    found = sweep(FILE, SPACE, out=Path("all"))
    table = pq.read_table("all/curves.parquet")
    assert table.column_names == ["index", "step", "loss", "validation_loss"]
    for name, curves in (("loss", found.curves), ("validation_loss", found.validation)):
        rows = {(row["index"], row["step"]): row[name] for row in table.to_pylist() if row[name] is not None}
        for index, values in zip(curves.index.tolist(), curves.losses, strict=True):
            assert [rows[index, step] for step in curves.steps.tolist()] == values.tolist()
    metrics = load_run("all/best").metrics
    kept = ~np.isnan(metrics["validation_loss"])
    assert metrics["validation_loss"][kept].tolist() == found.validation.losses[found.best["index"]].tolist()


def test_a_stopped_sweep_in_blocks_has_the_bits_of_the_whole(_in_blocks, monkeypatch):
    whole = sweep(FILE, SPACE, out=Path("whole"))
    seen = []

    @contextmanager
    def watch(threads):
        yield SweepWatcher(seen.append, lambda: 2 if len(seen) > 3 else 0)

    stopped = sweep(FILE, SPACE, out=Path("stopped"), watch=watch)
    assert stopped.code == 130
    resumed = resume_sweep("stopped")
    assert resumed.rows == whole.rows and np.array_equal(resumed.validation.losses, whole.validation.losses)
    assert np.array_equal(resumed.curves.losses, whole.curves.losses)


def test_blocks_need_a_batch_size(_in_blocks):
    with pytest.raises(InputError, match="--batch-size N reads it in blocks"):
        sweep(FILE | {"batch_size": None}, SPACE)


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_several_targets(loss, capsys):
    options = FILE | {"column": "y,z", "batch_size": None, "loss": loss}
    found = sweep(options, {"learning_rate": [1e-3, 1e-2]}, out=Path("all"))
    for row in found.rows:
        fit = run(configure(options | {"learning_rate": row["learning_rate"]}), Path(f"member{row['index']}")).fit
        assert [row["train_loss"], row["test_loss"]] == pytest.approx([fit.train_loss, fit.test_loss], rel=2e-3)
    assert main(["predict", "all/best", "--input", "data", "--output", "out.csv"]) == 0
    assert Path("out.csv").read_text().startswith("a,b,y,z\n")


def test_the_page_shows_the_curves_of_the_best_members(capsys):
    pytest.importorskip("plotly")
    sweep(FILE | {"batch_size": None}, {"seed": "0:3"}, out=Path("all"))
    report("all", output="page.html")
    page = Path("page.html").read_text(encoding="utf-8")
    for text in ("training loss of the best members: all", "validation loss of the best members: all", "member 2"):
        assert text in page
    assert "by validation_loss" in page
    for table, message in (
        ({"index": [0]}, "wanted the columns index"),
        ({"index": [0], "step": ["a"]}, "holds string"),
    ):
        pq.write_table(pa.table(table), "all/curves.parquet")
        with pytest.raises(InputError, match=message):
            report("all", output="other.html")
    Path("all/curves.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="curves.parquet: not a readable Parquet file"):
        report("all", output="other.html")


def test_the_command_says_by_what_the_best_member_is_chosen(capsys):
    words = ["sweep", "data", "--target", "y", "--vary", "seed=0:2", "--steps", "3", "--hidden", "2", "--loss", "mae"]
    assert main([*words, "--validation-points", "5"]) == 0
    shown = capsys.readouterr().out
    assert "(mean absolute error)" in shown and "(by which the best member is chosen)" in shown
