"""Predictions for files that are larger than memory, for stdin, and to stdout."""

import csv
import io
import sys
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import torch

from torchpure.cli import main
from torchpure.data import read_table
from torchpure.runs import _predict, _run, configure, load_run, predict, run

pytestmark = pytest.mark.usefixtures("here")
ROWS = [(f"c{i % 3}", i % 7, i / 8, i * 0.3 - 1) for i in range(500)]
NAMES = ["city", "rooms", "area", "price"]


@pytest.fixture
def houses(here, monkeypatch):
    for name in ("draw_loss", "draw_fit"):  # they take most of the time of a short run
        monkeypatch.setattr(_run, name, lambda path, *others: None)
    write_csv(Path("houses.csv"), NAMES, ROWS)
    run(
        configure({"target": "houses.csv", "column": "price", "steps": 5, "hidden": "4", "dtype": "float64"}),
        Path("made"),
    )
    return load_run("made")


def write_csv(path, names, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])


def source(suffix):
    path, columns = Path(f"new{suffix}"), [row[:3] for row in ROWS]
    table = pa.table(dict(zip(NAMES[:3], map(list, zip(*columns, strict=True)), strict=True)))
    if suffix == ".csv":
        write_csv(path, NAMES[:3], columns)
    elif suffix == ".parquet":
        pq.write_table(table, path, row_group_size=70)
    else:
        feather.write_feather(table, path, chunksize=70)
    return path


@pytest.mark.parametrize(
    ("suffix", "output"),
    [
        *((".parquet", output) for output in (".csv", ".parquet", ".arrow", ".npz")),
        (".csv", ".csv"),
        (".arrow", ".csv"),
    ],
)
def test_blocks_give_what_the_whole_file_gives(houses, monkeypatch, suffix, output):
    path, names = source(suffix), [*NAMES[:3], "price"]
    assert predict(houses, path, f"whole{output}") == 500
    monkeypatch.setattr(_predict, "MAX_AT_ONCE", 0)
    monkeypatch.setattr(_predict, "BLOCK", 64)
    blocks = []
    monkeypatch.setattr(_predict, "predict_table", counted(_predict.predict_table, blocks))
    assert predict(houses, path, f"blocks{output}") == 500 and sum(blocks) == 500
    assert len(blocks) > 5 or suffix == ".csv"
    whole, parts = (read_table(Path(f"{name}{output}"), names).arrow for name in ("whole", "blocks"))
    for name in NAMES[:3]:
        assert whole[name].to_pylist() == parts[name].to_pylist()
    assert parts["price"].to_pylist() == pytest.approx(whole["price"].to_pylist(), rel=1e-12)


def counted(function, counts):
    def call(model, rules, table):
        counts.append(table.arrow.num_rows)
        return function(model, rules, table)

    return call


def test_a_fault_in_a_late_block_names_its_line_and_leaves_no_file(houses, monkeypatch):
    write_csv(Path("bad.csv"), NAMES[:3], [row[:3] for row in ROWS[:400]] + [("c0", 3, "")])
    monkeypatch.setattr(_predict, "MAX_AT_ONCE", 0)
    monkeypatch.setattr(_predict, "BLOCK", 64)
    with pytest.raises(_predict.InputError, match="bad.csv: column `area`, line 402: wanted a number, got nothing"):
        predict(houses, "bad.csv", "out.csv")
    assert not [path for path in Path().iterdir() if "out" in path.name]


def test_stdin_and_stdout(houses, monkeypatch, capfd):
    path = source(".csv")
    predict(houses, path, "out.csv")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    assert main(["predict", "made", "--input", "-", "--output", "-"]) == 0
    assert capfd.readouterr().out.encode() == Path("out.csv").read_bytes()
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"")))
    assert main(["predict", "made", "--input", "-", "--output", "-"]) == 2
    assert "stdin.csv: the file is empty" in capfd.readouterr().err


def test_new_rows_are_encoded_by_the_rules_of_the_run(houses):
    predict(houses, source(".parquet"), "out.parquet")
    rows = dict(zip(NAMES[:3], map(list, zip(*(row[:3] for row in ROWS), strict=True)), strict=True))
    expected = pq.read_table("out.parquet")["price"].to_pylist()
    for columns in (rows, pa.table(rows)):
        assert houses.model(houses.encode(columns)).tolist() == expected
    with pytest.raises(_predict.InputError, match="rows: the model needs column `area`; it has: city, rooms"):
        houses.encode({"city": ["c0"], "rooms": [1]})
    with pytest.raises(_predict.InputError, match="rows: wanted a table or a dict of lists, got 3"):
        houses.encode(3)
    for value in (50.0, "Oslo", None, torch.ones(3).numpy()[0]):
        with pytest.raises(_predict.InputError, match=r"rows: column `area`: wanted a dict of lists, as in \["):
            houses.encode({"area": value})
    with pytest.raises(ValueError, match=r"model: wanted inputs of shape \(rows, 5\).*got \(4, 1\); `encode`"):
        houses.model(torch.zeros(4, 1))
