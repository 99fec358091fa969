import gzip
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import torch

from torchpure.data import _columnar, _csv, _npz, encode, fit_columns, read_table
from torchpure.data._formats import FORMATS, format_of
from torchpure.data._values import numbers
from torchpure.errors import InputError


def values(path, *names):
    """Read columns of numbers; a missing value is refused."""
    table = read_table(path, names)
    columns = fit_columns(table, names)
    assert all(column.kind == "number" for column in columns)
    return encode(columns, table).T.tolist()


def write(path, content):
    if isinstance(content, str | bytes):
        content = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    elif path.suffix in (".feather", ".arrow"):
        feather.write_feather(pa.table(content), path)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        pq.write_table(pa.table(content), path)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "x,y\n1,2\n3,4\n"),
        ("a.csv", "\ufeffx, y\r\n\r\n1, 2\r\n\r\n3,4"),
        ("a.csv", '"x","y"\n"1","2"\n3.0,4e0\n'),
        ("a.csv.gz", "x,y\n1,2\n3,4\n"),
        ("a.feather", {"x": [1, 3], "y": [2.0, 4.0]}),
        ("a.arrow", {"x": [1, 3], "y": [2.0, 4.0]}),
        ("a.npz", {"x": np.array([1, 3]), "y": np.array([2.0, 4.0], dtype=np.float32)}),
        ("a.parquet", {"x": [1, 3], "y": [2.0, 4.0]}),
    ],
)
def test_names_and_values(tmp_path, name, content):
    path = write(tmp_path / name, content)
    assert FORMATS[format_of(name)].names(path) == ["x", "y"]
    assert values(path, "y", "x") == [[2.0, 4.0], [1.0, 3.0]]
    assert numbers(read_table(path, ["y"]), "y").dtype == torch.float64


def test_true_and_false_are_numbers(tmp_path):
    path = write(tmp_path / "a.csv", "x,y\nTrue,1\nfalse,2\n TRUE ,3\n")
    assert values(path, "x", "y") == [[1.0, 0.0, 1.0], [1.0, 2.0, 3.0]]


def test_a_line_that_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(_csv, "MAX_LINE", 10)
    monkeypatch.setattr(_csv, "BLOCK", 10)
    with pytest.raises(InputError, match="a line has more than 10 characters"):
        values(write(tmp_path / "a.csv", "x\n1\n" + "1" * 50 + "\n2"), "x")


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.npz"])
def test_more_numbers_than_memory(tmp_path, monkeypatch, name):
    monkeypatch.setattr(_columnar, "MAX_NUMBERS", 3)
    path = write(tmp_path / name, {"x": np.arange(2), "y": np.arange(2)})
    assert values(path, "x") == [[0.0, 1.0]]
    with pytest.raises(InputError, match="2 rows of 2 columns are more than 3 values; --inputs a,b chooses columns"):
        values(path, "x", "y")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_more_text_than_memory(tmp_path, monkeypatch, name):
    monkeypatch.setattr(_csv, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="more than 1000 bytes of text; --batch-size reads it in parts"):
        values(write(tmp_path / name, "x\n" + "1\n" * 10_000), "x")


def test_a_column_changes_its_kind_late(tmp_path):
    """The first block of the file says integers, a later one has a fraction."""
    path = write(tmp_path / "a.csv", "x,y\n" + "1,2\n" * 1_500_000 + "1.5,2\n")
    assert [column[-1] for column in values(path, "x", "y")] == [1.5, 2.0]


def test_line_breaks_in_quotes_between_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(_csv, "MAX_LINE", 1000)
    path = write(tmp_path / "a.csv", "x,t\n" + '1,"a\nb"\n' * 1000)
    assert values(path, "x") == [[1.0] * 1000]
    assert read_table(path, ["t"]).arrow["t"].unique().to_pylist() == ["a\nb"]


def test_columns_of_a_matrix(tmp_path):
    path = write(tmp_path / "a.npz", {"x": np.array([[1, 2], [3, 4]]), "y": np.array([True, False])})
    assert FORMATS[".npz"].names(path) == ["x_0", "x_1", "y"]
    assert values(path, "x_1", "y") == [[2.0, 4.0], [1.0, 0.0]]


def test_unused_columns_can_hold_anything(tmp_path):
    path = write(tmp_path / "a.csv", "city,x\nOslo,1\n,2\n")
    assert values(path, "x") == [[1.0, 2.0]]
    path = write(tmp_path / "a.parquet", {"city": ["Oslo", None], "x": [True, False]})
    assert values(path, "x") == [[1.0, 0.0]]
    path = write(tmp_path / "a.npz", {"other": np.zeros(5), "x": np.zeros(2)})
    assert values(path, "x") == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x,y\n1\n", "line 2 has 1 fields; the header has 2"),
        ("x,y\n1,2\n\n1,2,3\n", "line 4 has 3 fields"),
        ("x,y\n1,2\n1,Oslo\n", "column `y`, line 3: wanted a number, got 'Oslo'; --inputs"),
        ("x,y\n1,2\n1,\n", "column `y`, line 3: wanted a number, got nothing"),
        ("x,y\n3,2\n1_0,2\n", "column `x`, line 3: wanted a number, got '1_0'"),
        ("x,y\n1,2\nnan,2\n", "column `x`, line 3: wanted a finite number, got 'nan'"),
        ("x,y\n1,-inf\n", "column `y`, line 2: wanted a finite number"),
        ("x,y\n1,1e999\n", "column `y`, line 2: wanted a finite number"),
        (b"x,y\n\xff,1\n", "not UTF-8 text"),
        ("x,y\n" + "1" * 200_000 + ",2\n", "not a csv file: field larger"),
        ("x,y\nParis,1\n2,1\n3,1\n", "column `x`, line 2: wanted a number, got 'Paris'"),
    ],
)
def test_refused_csv(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        values(write(tmp_path / "a.csv", content), "x", "y")


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_refused_empty_csv(tmp_path, content):
    with pytest.raises(InputError, match="the file is empty"):
        _csv.csv_names(write(tmp_path / "a.csv", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": np.zeros(2), "y": np.zeros(3)}, "wanted columns of one length, got x: 2, y: 3"),
        ({"x": np.zeros(2), "y": np.array([b"a", b"b"])}, "column `y` holds .S1 .row 0 is"),
        ({"x": np.zeros(2), "y": np.zeros(2, dtype=complex)}, "column `y` holds complex128"),
        ({"x": np.zeros(2), "y": np.zeros((2, 2, 2))}, r"array `y` has shape \(2, 2, 2\)"),
        ({"x": np.zeros(2), "y": np.zeros(())}, r"array `y` has shape \(\)"),
        ({"x": np.zeros(2), "y": np.array([1.0, np.nan])}, "column `y`, row 1 .counted from 0.: .* got 'nan'"),
        ({"x": np.zeros(2), "y": np.array([None, "a"])}, "not a readable .npz archive"),
    ],
)
def test_refused_npz(tmp_path, content, message):
    path = write(tmp_path / "a.npz", content)
    with pytest.raises(InputError, match=message):
        values(path, "x", "y")


def npy(descr, shape, data=b""):
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


GOOD = npy("<f8", (3,), np.arange(3.0).tobytes())
HOSTILE = {
    "no array": (b"junk", "array `x` is no array: .*EOF"),
    "nothing": (b"", "array `x` is no array"),
    "objects": (npy("|O", (3,), b"cos\nsystem\n"), "array `x` holds Python objects; wanted numbers"),
    "a bomb": (npy("<f8", (10**12,)), "array `x` has shape .* and needs 8000000000000 bytes; at most 1073741824"),
    "a wide bomb": (npy("<f8", (10**9, 999)), "array `x` has shape .* and needs 7992000000000 bytes"),
    "more than there is": (
        npy("<f8", (10**6,), b"1234"),
        "array `x` has shape .* needs 8000000 bytes, but the archive has 4",
    ),
    "less than there is": (npy("<f8", (1,), b"1" * 16), "array `x` has shape .* needs 8 bytes, but the archive has 16"),
    "negative": (npy("<f8", (-5,)), r"array `x` has shape \(-5,\); wanted \(rows,\)"),
    "too many columns": (npy("<f8", (0, 10**9)), "array `x` has shape .*columns up to 1000"),
    "a broken header": (b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((((", "array `x` is no array"),
    "a deep header": (b"\x93NUMPY\x01\x00\xff\x1f" + b"(" * 0x1FFF, "array `x` is no array"),
    "an unknown dtype": (npy("<f99", (3,)), "array `x` is no array: .*f99"),
    "an unknown version": (b"\x93NUMPY\x09\x00" + GOOD[8:], "array `x` is no array"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members(tmp_path, name):
    content, message = HOSTILE[name]
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", GOOD)
    assert "x" in FORMATS[".npz"].names(path) or name == "too many columns"
    assert values(path, "y") == [[0.0, 1.0, 2.0]]  # the other member can be read
    tracemalloc.start()
    with pytest.raises(InputError, match=f"not a readable .npz archive of numbers: {message}"):
        values(path, "x", "y")
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_a_damaged_member_is_named(tmp_path):
    path = write(tmp_path / "a.npz", {"x": np.arange(1e5), "y": np.arange(1e5)})
    content = path.read_bytes()
    path.write_bytes(content.replace(np.float64(99998.0).tobytes(), np.float64(3.0).tobytes(), 1))
    with pytest.raises(InputError, match="array `x`: Bad CRC-32"):
        values(path, "x", "y")


def test_an_archive_with_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(_npz, "MAX_MEMBERS", 2)
    with pytest.raises(InputError, match="the archive has 3 members; at most 2 are allowed"):
        FORMATS[".npz"].names(write(tmp_path / "a.npz", dict.fromkeys("abc", np.zeros(2))))


def test_other_byte_orders_and_booleans(tmp_path):
    path = write(tmp_path / "a.npz", {"x": np.array([1, 2], dtype=">i4"), "y": np.array([True, False])})
    assert values(path, "x", "y") == [[1.0, 2.0], [1.0, 0.0]]


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken"])
@pytest.mark.parametrize("name", ["a.npz", "a.parquet", "a.feather", "a.csv.gz"])
def test_refused_archives(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    wanted = "the file is empty" if (name, content) == ("a.csv.gz", b"") else "not a readable"
    with pytest.raises(InputError, match=wanted):
        FORMATS[format_of(name)].names(path)


def test_refused_bare_array(tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match=r"not an \.npz archive"):
        FORMATS[".npz"].names(path)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1], [2]], r"column `y` holds list<.*> .row 0 is '\[1\]'.; wanted numbers, text"),
        (pa.array([1, 2], pa.time32("s")), "column `y` holds time32"),
        ([None, None], "column `y` has no values"),
        ([1.0, None], "column `y`, row 1 .counted from 0.: wanted a number, got nothing"),
        ([1.0, float("inf")], "column `y`, row 1 .counted from 0.: wanted a finite number, got 'inf'"),
    ],
)
def test_refused_parquet(tmp_path, column, message):
    with pytest.raises(InputError, match=message):
        values(write(tmp_path / "a.parquet", {"y": column}), "y")


def test_a_line_longer_than_a_block_is_read(tmp_path):
    text = "w" * (_csv.BLOCK + 10)
    path = tmp_path / "long.csv"
    path.write_text(f"a,b\n1,x\n2,{text}\n3,y\n")
    table = read_table(path, ["a", "b"])
    assert table.arrow["a"].to_pylist() == [1, 2, 3] and table.arrow["b"].to_pylist() == ["x", text, "y"]
