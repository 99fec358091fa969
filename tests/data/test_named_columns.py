"""Columns that are read by name and written: the same bits come back, and a missing name is told with the nearest."""

import pyarrow as pa
import pytest
import torch

from torchpure.data import column_names, read_columns, write_table
from torchpure.errors import InputError

VALUES = {
    "a": torch.tensor([0.1, -1e-300, 1e17], dtype=torch.float64),
    "file": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
    'b,"\nc': torch.tensor([1 / 3, 2.0, -0.0], dtype=torch.float64),
}
COLUMNS = pa.table({name: values.numpy() for name, values in VALUES.items()})


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet", ".feather"])
def test_written_columns_are_read_with_the_same_bits(suffix, tmp_path, listing):
    path = tmp_path / f"t{suffix}"
    path.write_text("an older file")
    write_table(path, COLUMNS)
    assert column_names(path) == list(VALUES)
    wanted = ["file", 'b,"\nc', "a"]
    x = read_columns(path, wanted)
    assert torch.equal(x, torch.stack([VALUES[name] for name in wanted], dim=-1))
    assert x[2, 1].signbit()
    assert listing(tmp_path) == [path.name]


def test_missing_columns_are_told_with_the_nearest_names(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("area,rooms\n1,2\n")
    with pytest.raises(InputError, match=r"needs columns `Area` \(did you mean `area`\?\), `zip`; it has: area, rooms"):
        read_columns(path, ["Area", "rooms", "zip"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.csv", "no such file"),
        ("t.txt", "wanted a data file: .csv"),
        ("folder.csv", "no files"),
        ("twice.csv", "column `a` appears more than once"),
        ("a\0.csv", "wanted a data file"),
    ],
)
def test_files_that_cannot_be_read(name, message, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    with pytest.raises(InputError, match=message):
        read_columns(tmp_path / name, ["a"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("t.txt", "ends with .csv"), ("no/t.csv", "cannot be written"), ("folder.csv", "exists, and is no regular file")],
)
def test_places_that_cannot_be_written(name, message, tmp_path, listing):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=message):
        write_table(tmp_path / name, COLUMNS)
    assert listing(tmp_path) == ["folder.csv"]
