"""Folders and patterns of data files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import torch

from torchpure.data import _files, digest, find_types, list_files, memory_needed, num_blocks, read_blocks, read_table
from torchpure.errors import InputError

TEXTS = [f"t{i % 3}" for i in range(30)]
WRITERS = {
    ".csv": lambda table, path: arrow_csv.write_csv(table, path),
    ".parquet": lambda table, path: pq.write_table(table, path, row_group_size=4),
    ".arrow": lambda table, path: feather.write_feather(table, path, chunksize=4),
}


@pytest.fixture(params=WRITERS)
def folder(request, tmp_path):
    """Three files of ten rows: the second has other types, and its columns in another order."""
    made = tmp_path / "data"
    (made / "inner").mkdir(parents=True)
    for number, name in enumerate(("a", "b", "inner/c")):
        rows = range(10 * number, 10 * number + 10)
        x = [i + 0.5 * (number == 1) for i in rows] if number == 1 else [*rows]
        table = pa.table({"x": x, "t": TEXTS[rows.start : rows.stop]})
        WRITERS[request.param](table.select(["t", "x"]) if number == 1 else table, made / f"{name}{request.param}")
    (made / "_SUCCESS").touch()
    return made


def expected():
    return [i + 0.5 * (10 <= i < 20) for i in range(30)]


def test_a_folder_is_one_table(folder):
    table = read_table(folder, ["x", "t"])
    assert table.arrow["x"].to_pylist() == expected() and table.arrow["t"].to_pylist() == TEXTS
    suffix = list_files(folder)[0].suffix
    for path, rows in ((folder / f"*{suffix}", 20), (folder.parent / "**" / f"*{suffix}", 30)):
        assert read_table(path, ["x"]).arrow["x"].to_pylist() == expected()[:rows]


@pytest.mark.parametrize("size", [3, 7, 100])
def test_blocks_of_a_folder_have_all_rows_with_their_numbers(folder, size):
    types = find_types(folder, ["x", "t"])
    assert types.rows == (10, 10, 10) and num_blocks(folder) >= 3 and memory_needed(folder, 2) > 0
    for order in (None, torch.randperm(num_blocks(folder), generator=torch.Generator().manual_seed(0)).tolist()):
        found = {}
        for table in read_blocks(folder, ["x", "t"], types, size, order):
            cells = zip(table.arrow["x"].to_pylist(), table.arrow["t"].to_pylist(), strict=True)
            found |= dict(zip(table.rows.tolist(), cells, strict=True))
        assert found == dict(enumerate(zip(expected(), TEXTS, strict=True)))


def test_a_row_of_a_folder_knows_its_file(folder):
    table = read_table(folder, ["x"])
    blocks = [*read_blocks(folder, ["x"], find_types(folder, ["x"]), 100)]
    for one in (table, *blocks):
        place, text = one.place(12, "x")
        assert f" of {folder / 'b'}" in place and place.startswith(("line 4", "row 2")) and float(text) == 12.5


def test_files_that_differ_are_named(folder):
    first, *_, last = list_files(folder)
    write = WRITERS[first.suffix]
    write(pa.table({"x": ["word"], "t": ["a"]}), last)
    message = f"column `x` holds numbers in {first}, and text in {last}; wanted the same in all files"
    for read in (lambda: read_table(folder, ["x"]), lambda: find_types(folder, ["x"])):
        with pytest.raises(InputError, match=message):
            read()
    write(pa.table({"y": [1.0], "t": ["a"]}), last)
    with pytest.raises(InputError, match=f"{first} has column `x`, {last} has not; wanted the same columns"):
        read_table(folder, ["x"])


def test_the_digest_is_that_of_names_and_contents(folder):
    before, (first, *_) = digest(folder), list_files(folder)
    assert before == digest(folder) and len(digest(first)) == 64
    moved = first.rename(first.with_stem("aa"))
    assert digest(folder) != before
    moved.rename(first)
    assert digest(folder) == before
    first.write_bytes(first.read_bytes() + b" ")
    assert digest(folder) != before


def test_folders_that_are_no_table(tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, message in (
        (empty, "no files; wanted a data file"),
        (empty / "*.csv", "no files"),
        (tmp_path / "none", "none: no such file or directory; wanted a data file, or a folder of such files"),
    ):
        with pytest.raises(InputError, match=message):
            list_files(path)
    one, other = tmp_path / "a.csv", tmp_path / "b.csv.gz"
    one.write_text("x\n1\n")
    other.touch()
    with pytest.raises(InputError, match=f"{one} and {other} have different formats; a pattern such as .*csv chooses"):
        list_files(tmp_path)
    other.rename(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="notes.txt': wanted a data file"):
        list_files(tmp_path)
    (tmp_path / "notes.txt").rename(tmp_path / "_notes")
    (tmp_path / "city=Oslo").mkdir()
    (tmp_path / "city=Oslo" / "c.csv").write_text("x\n1\n")
    message = "city=Oslo: a folder that stands for the value of a column is read for Parquet and Arrow files alone"
    with pytest.raises(InputError, match=message):
        list_files(tmp_path)
    (tmp_path / "b.csv").write_text("x\n1\n")
    monkeypatch.setattr(_files, "MAX_FILES", 1)
    with pytest.raises(InputError, match="2 files; at most 1 are read"):
        list_files(tmp_path / "*.csv")
    assert list_files(one) == (one,) and list_files(Path(f"{one}")) == (one,)
