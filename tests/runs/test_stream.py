"""Files larger than memory: every row is used once an epoch, in an order that comes from the key."""

import contextlib
import itertools
import json
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import torch

from torchpure import random
from torchpure.data import find_types
from torchpure.errors import InputError
from torchpure.runs import Watcher, configure, resume, run
from torchpure.runs.fits import _points
from torchpure.runs.fits._points import load

KEY = random.key(0)
ROWS = 1000


@pytest.fixture(params=["a.csv", "a.csv.gz", "a.parquet", "a.arrow"])
def path(request, here, monkeypatch):
    """Write a table whose rows are numbered by x, in parts of 300 rows, that counts as too large."""
    monkeypatch.setattr(_points, "memory_needed", lambda path, columns: 2**40)
    monkeypatch.setattr(_points, "MAX_BLOCK", 128)
    return write(here / request.param, ROWS)


def write(path, count):
    names = ["even", "odd"]
    table = pa.table(
        {"x": range(count), "kind": [names[x % 2] for x in range(count)], "y": [2.0 * x for x in range(count)]}
    )
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=300)
    elif path.suffix == ".arrow":
        feather.write_feather(table, path, chunksize=300)
    else:
        lines = ["x,kind,y", *(f"{x},{names[x % 2]},{2.0 * x}" for x in range(count))]
        with pa.output_stream(path, compression="detect") as file:
            file.write("\n".join(lines).encode())
    return path


def loaded(path, **options):
    return load(
        configure({"target": str(path), "column": "y", "batch_size": 32, "validation_points": 10} | options), KEY
    )


def rows(batches):
    return [x[:, 0].to(torch.int64).tolist() for x, _ in batches]


def test_each_epoch_has_every_training_row_once(path):
    data = loaded(path)
    assert data.stream is not None
    held = torch.cat([data.validation.x[:, 0], data.test.x[:, 0]]).to(torch.int64).tolist()
    assert len(held) == len(set(held)) == ROWS - data.train_points
    per_epoch = -(-data.train_points // 32)
    found = rows(data.stream.batches(KEY, 2 * per_epoch, 32))
    first, second = found[:per_epoch], found[per_epoch:]
    for epoch in (first, second):
        assert sorted(itertools.chain(*epoch)) == sorted(set(range(ROWS)) - set(held))
        assert {len(batch) for batch in epoch[:-1]} == {32}
    assert first != second
    assert all(torch.equal(y, 2 * x[:, 0]) for x, y in data.stream.batches(KEY, 5, 32))


def test_batches_from_a_start_are_what_is_left_after_it(path):
    stream = loaded(path).stream
    found = rows(stream.batches(KEY, 70, 32))
    for start in (0, 1, 30, 65):
        assert rows(stream.batches(KEY, 70, 32, start)) == found[start:]


def test_the_sample_is_spread_over_the_file(path):
    sampled = loaded(path).train.x[:, 0]
    assert 0.3 * ROWS < float(sampled.mean()) < 0.7 * ROWS
    assert len(sampled) < 128


def test_a_run_in_blocks_learns(path):
    done = run(configure({"target": str(path), "column": "y", "batch_size": 32, "steps": 300, "hidden": "8"}))
    assert done.fit.measured["r2"] > 0.95
    data = json.loads((done.directory / "config.json").read_text())["data"]
    assert data["train_points"] + data["test_points"] == ROWS


def test_a_run_in_blocks_is_resumed_with_the_same_bits(path):
    options = {"column": "y", "batch_size": 32, "steps": 50, "hidden": "4", "checkpoint_every": 7}
    config, seen = configure({"target": str(path)} | options), []

    @contextlib.contextmanager
    def watch(steps, threads):
        yield Watcher(lambda step, loss: seen.append(step), lambda: signal.SIGINT if len(seen) == 30 else 0)

    run(config, Path("whole"))
    assert run(config, Path("stopped"), watch).fit.steps == 30
    resume("stopped")
    for name in ("metrics.jsonl", "params.safetensors"):
        assert (Path("stopped") / name).read_bytes() == (Path("whole") / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": None},
            "needs about 1099511627776 bytes, more than --max-memory .*; --batch-size N reads it in",
        ),
        ({"train_points": 5}, "--train-points: a file that is read in blocks, because of --max-memory, is used whole"),
    ],
)
def test_refused(path, options, message):
    with pytest.raises(InputError, match=message):
        loaded(path, **options)


def test_incomplete_rows_are_dropped(here, monkeypatch):
    monkeypatch.setattr(_points, "memory_needed", lambda path, columns: 2**40)
    lines = [f"{x},{'' if x % 10 == 0 else 2 * x}" for x in range(ROWS)]
    (here / "a.csv").write_text("x,y\n" + "\n".join(lines) + "\n")
    data = loaded(here / "a.csv", missing="drop")
    assert data.train_points + len(data.test.y) + len(data.validation.y) == 900


def test_types_that_change_late_in_a_file(here):
    (here / "a.csv").write_text("n,t,x\n" + "1,2,3\n" * 1_500_000 + "1.5,word,4\n")
    assert {name: str(kind) for name, kind in find_types(here / "a.csv", ["x", "n", "t"]).columns.items()} == {
        "x": "int64",
        "n": "double",
        "t": "string",
    }
