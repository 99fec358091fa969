"""Folders that stand for the value of a column, such as `year=2024`."""

import json

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

import torchpure as tp
from torchpure.data import column_names, digest, find_types, num_blocks, read_blocks, read_table
from torchpure.errors import InputError

NAMES = ["city", "x", "year", "y"]


@pytest.fixture
def table():
    rows = range(60)
    return pa.table(
        {
            "x": [i / 10 for i in rows],
            "y": [i / 5 + (i % 3) for i in rows],
            "year": [2022 + i % 3 for i in rows],
            "city": [("Oslo", "New York", None)[i // 20] for i in rows],
        }
    )


@pytest.fixture(params=["parquet", "feather"])
def folder(request, table, tmp_path):
    """Nine files, as pyarrow writes them."""
    made = tmp_path / "data"
    options = {"partitioning": ["year", "city"], "partitioning_flavor": "hive", "format": request.param}
    ds.write_dataset(table, made, existing_data_behavior="error", **options)
    return made


def fields(run):
    return json.loads((run / "config.json").read_text())["data"]["preprocessing"]["inputs"]


def in_order(table):
    return sorted(table.select(NAMES).to_pylist(), key=lambda row: row["x"])


def test_a_folder_is_a_column_of_its_files(folder, table):
    assert sorted(column_names(folder)) == sorted(NAMES)
    read = read_table(folder, NAMES)
    assert read.arrow.schema.field("year").type == pa.int64() and in_order(read.arrow) == in_order(table)
    assert read_table(folder, ["year"]).arrow.num_rows == 60  # no column of the files
    one_city = folder / "year=*" / "city=Oslo" / "*"
    assert {row["city"] for row in read_table(one_city, ["city", "y"]).arrow.to_pylist()} == {"Oslo"}
    assert column_names(folder / "year=2022" / "city=Oslo") == ["x", "y"]  # the path itself is no column


def test_blocks_have_the_columns_of_folders(folder, table):
    types = find_types(folder, NAMES)
    for order in (None, [*range(num_blocks(folder))][::-1]):
        blocks = [*read_blocks(folder, NAMES, types, 16, order)]
        assert in_order(pa.concat_tables([block.arrow for block in blocks])) == in_order(table)
    one = folder / "year=2022" / "city=*" / "*"
    for path in (one, folder / "year=2022"):
        blocks = [*read_blocks(path, ["city", "y"], find_types(path, ["city", "y"]), 7)]
        assert sum(block.arrow.num_rows for block in blocks) == 20
        assert {row["city"] for block in blocks for row in block.arrow.to_pylist()} == {"Oslo", "New York", None}


def test_one_file_in_a_folder(tmp_path):
    (tmp_path / "day=2024-02-29").mkdir()
    pq.write_table(pa.table({"y": [1.0, 2.0]}), tmp_path / "day=2024-02-29" / "part.parquet")
    for arrow in (
        read_table(tmp_path, ["day", "y"]).arrow,
        next(iter(read_blocks(tmp_path, ["day", "y"], find_types(tmp_path, ["day", "y"]), 9))).arrow,
    ):
        assert arrow.schema.field("day").type == pa.date32() and arrow.num_rows == 2


def test_the_files_own_column_is_the_one_that_is_read(tmp_path):
    (tmp_path / "x=7").mkdir()
    pq.write_table(pa.table({"x": [1.5]}), tmp_path / "x=7" / "part.parquet")
    assert column_names(tmp_path) == ["x"] and read_table(tmp_path, ["x"]).arrow.column("x").to_pylist() == [1.5]


def test_files_in_folders_of_other_names_are_refused(tmp_path):
    for name in ("year=2024", "month=1"):
        (tmp_path / name).mkdir()
        feather.write_feather(pa.table({"y": [1.0]}), tmp_path / name / "part.arrow")
    with pytest.raises(InputError, match="is in a folder month=..., .*year=2024/part.arrow is not; wanted the same"):
        column_names(tmp_path)


def test_a_renamed_folder_is_other_data(folder):
    before = digest(folder)
    (folder / "year=2022").rename(folder / "year=2021")
    assert digest(folder) != before


def test_fit_predict_and_sweep_take_the_columns_of_folders(folder, tmp_path):
    options = {"target": f"{folder}/", "column": "y", "steps": 3, "hidden": "4", "missing": "drop"}
    run = tp.runs.run(tp.runs.configure(options), tmp_path / "run")
    assert {column["name"] for column in fields(run.directory)} == {"x", "year", "city"}
    known = folder / "year=*" / "city=[ON]*" / "*"
    assert tp.runs.predict(run.directory, known, tmp_path / "out.parquet") == 40
    assert {"x", "year", "city"} < {*pq.read_schema(tmp_path / "out.parquet").names}
    swept = tp.runs.sweep(options | {"inputs": "year,x"}, {"seed": "0:2"}, out=tmp_path / "sweep")
    assert swept.counts() == {"done": 2}
