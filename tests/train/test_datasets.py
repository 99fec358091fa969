"""Datasets of pyarrow, and files by their path, in tp.fit; and epochs."""

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.dataset as ds
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import torch

import torchpure as tp
from torchpure.train.tables import _datasets

SGD = tp.optim.sgd(0.01)
WEIGHTS = {"weight": torch.ones(1, 1), "bias": torch.zeros(1)}
WRITERS = {
    "csv": lambda table, path: arrow_csv.write_csv(table, path),
    "parquet": lambda table, path: pq.write_table(table, path, row_group_size=5),
    "arrow": lambda table, path: feather.write_feather(table, path, chunksize=5),
}


@pytest.fixture(params=WRITERS)
def folder(request, tmp_path):
    for number in range(2):
        x = [float(i) + 0.5 for i in range(20 * number, 20 * number + 20)]
        table = pa.table({"y": [2 * value for value in x], "x": x, "note": ["a"] * 20})
        WRITERS[request.param](table, tmp_path / f"part-{number}.{request.param}")
    return tmp_path


def rows_seen(data, **options):
    """The rows of each step of a fit whose loss is the sum of its batch, weighted by a parameter of no gradient."""
    seen = []

    def loss(weight, batch):
        seen.append(batch["x"].tolist())
        assert torch.equal(batch["y"], 2 * batch["x"])
        return weight * batch["x"].sum()

    given = {"params": torch.tensor(1.0, dtype=torch.float64), "columns": ["x", "y"], "batch_size": 6, "jit": False}
    tp.fit(loss, data, optimizer=SGD, **given | options)
    return seen


def test_a_folder_is_read_in_order_without_a_key(folder):
    expected = torch.arange(40, dtype=torch.float64).add(0.5)
    wanted = [part.tolist() for part in expected.split(6)]
    suffix = next(folder.iterdir()).suffix
    opened = ds.dataset(folder, format={".arrow": "feather"}.get(suffix, suffix[1:]))
    for data in (folder, folder / f"*{suffix}", opened):
        assert rows_seen(data, epochs=1) == wanted
        assert rows_seen(data, steps=9) == [*wanted, *wanted[:2]]


def test_folders_are_columns_before_those_of_the_files(tmp_path):
    table = pa.table({"x": [float(i) for i in range(40)], "year": [2020 + i // 10 for i in range(40)]})
    ds.write_dataset(table, tmp_path / "data", format="parquet", partitioning=["year"], partitioning_flavor="hive")
    wanted = [(row["year"], row["x"]) for row in table.to_pylist()]
    for path in (tmp_path / "data", tmp_path / "data" / "year=*" / "*.parquet"):
        for columns in (None, ["year", "x"]):
            batches = _datasets.DatasetBatches(path, columns, torch.float64, 6, None, for_module=True)
            seen = [(int(year), x) for inputs, target in batches for year, x in torch.cat([inputs, target], 1).tolist()]
            assert seen == wanted


def test_with_a_key_each_epoch_has_all_rows_in_another_order(folder, monkeypatch):
    monkeypatch.setattr(_datasets, "BLOCK", 7)
    options = {"epochs": 2, "key": tp.random.key(3)}
    seen = rows_seen(folder, **options)
    first, second = ([value for batch in part for value in batch] for part in (seen[:7], seen[7:]))
    assert sorted(first) == sorted(second) == [i + 0.5 for i in range(40)]
    assert first != second and first != sorted(first)
    assert rows_seen(folder, **options) == seen


def test_a_stopped_fit_of_a_dataset_is_resumed(folder, tmp_path_factory):
    net = torch.nn.Linear(1, 1)
    given = {"columns": ["x", "y"], "batch_size": 6, "key": tp.random.key(1), "optimizer": tp.optim.adam(1e-2)}
    whole = tp.fit(net, folder, epochs=3, **given)
    place = tmp_path_factory.mktemp("run") / "checkpoints"
    tp.fit(net, folder, steps=10, checkpoint=place, **given)
    resumed = tp.fit(net, folder, epochs=3, checkpoint=place, resume=True, **given)
    assert torch.equal(resumed.history, whole.history) and torch.equal(resumed.params["weight"], whole.params["weight"])


@pytest.mark.parametrize("steps", [6, 7, 14, 15])
def test_a_resumed_fit_reads_no_epoch_that_lies_before_it(folder, tmp_path_factory, monkeypatch, steps):
    """An epoch has seven batches, the last of which is smaller."""
    epochs, epoch = [], _datasets.DatasetBatches.epoch

    def recorded(self, number):
        epochs.append(number)
        return epoch(self, number)

    given = {"columns": ["x", "y"], "batch_size": 6, "key": tp.random.key(1), "optimizer": SGD}
    whole = tp.fit(torch.nn.Linear(1, 1), folder, epochs=3, **given | {"params": WEIGHTS})
    place = tmp_path_factory.mktemp("run") / "checkpoints"
    tp.fit(torch.nn.Linear(1, 1), folder, steps=steps, checkpoint=place, **given | {"params": WEIGHTS})
    monkeypatch.setattr(_datasets.DatasetBatches, "epoch", recorded)
    again = {"params": WEIGHTS, "checkpoint": place, "resume": True}
    resumed = tp.fit(torch.nn.Linear(1, 1), folder, epochs=3, **given | again)
    assert torch.equal(resumed.history, whole.history)
    assert epochs.count(0) == 1  # its first batch shows the shapes
    assert [epoch for epoch in epochs if 0 < epoch < steps // 7] == [] and epochs[-1] == 2


def test_files_that_differ_are_named(tmp_path):
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(pa.table({"x": [1.0], "y": [2.0]}), first)
    pq.write_table(pa.table({"x": [1.0], "z": [2.0]}), second)
    with pytest.raises(ValueError, match=f"fit: {first} has column 'y', {second} has not"):
        rows_seen(tmp_path, steps=1)
    pq.write_table(pa.table({"x": ["one"], "y": [2.0]}), second)
    with pytest.raises(ValueError, match=f"column 'x' holds double in {first}, and string in {second}"):
        rows_seen(tmp_path, steps=1)


def test_data_that_cannot_be_read(folder):
    for data, options, error, message in (
        (folder, {"batch_size": None}, ValueError, "read batch by batch: pass batch_size="),
        (folder / "none.csv", {}, ValueError, "none.csv: no such files"),
        (folder, {"columns": ["xx"]}, ValueError, "the dataset has no column 'xx' .did you mean 'x'"),
        (folder, {"columns": ["note"]}, TypeError, "column 'note' holds string: wanted numbers"),
        (folder, {"columns": "x"}, TypeError, "columns must be a list of names"),
    ):
        with pytest.raises(error, match=message):
            rows_seen(data, steps=1, **options)
    (folder / "notes.txt").touch()
    with pytest.raises(TypeError, match="wanted files of one kind, of .csv, .parquet, .feather, .arrow, got"):
        rows_seen(folder, steps=1)


@pytest.mark.parametrize(
    ("data", "options", "steps"),
    [
        (torch.zeros(10), {}, 3),
        (torch.zeros(10), {"batch_size": 4, "key": tp.random.key(0)}, 9),
        ([(torch.zeros(2),)] * 5, {}, 15),
    ],
)
def test_epochs_are_passes_over_the_data(data, options, steps):
    result = tp.fit(
        lambda p, x: (p - x).square().sum(), data, params=torch.ones(()), optimizer=SGD, epochs=3, **options
    )
    assert len(result.history) == steps


def test_epochs_that_have_no_number_of_steps():
    def fit(data, **options):
        tp.fit(lambda p, x: (p - x).sum(), data, params=torch.ones(()), optimizer=SGD, **options)

    for options, message in (
        ({}, r"wanted one of steps= \(updates\) and epochs= \(passes over the data\), got none"),
        ({"steps": 3, "epochs": 3}, "got steps=3 and epochs=3"),
        ({"epochs": 1.5}, "epochs must be an integer"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(torch.zeros(3), **options)
    with pytest.raises(ValueError, match=r"this iterable has no len\(\): pass steps="):
        fit(iter([torch.zeros(3)]), epochs=1)
