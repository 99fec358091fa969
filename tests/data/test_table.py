import os
import time

import pytest

from torchpure.data import choose, column_names, encode, fit_columns, is_table, read_table
from torchpure.errors import InputError


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("a.csv", True),
        ("A.CSV", True),
        ("a.parquet", True),
        ("a.npz", True),
        ("a.csv.gz", True),
        ("a.feather", True),
        ("a.arrow", True),
        ("a.gz", False),
        ("x", False),
        ("a.xlsx", False),
    ],
)
def test_is_table(target, expected):
    assert is_table(target) is expected


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b,c\n1,2,3\n4,5,6\n")
    return path


def read(path, column, inputs):
    choice = choose(path, column_names(path), column, inputs)
    table = read_table(path, (*choice.inputs, *choice.targets))
    return choice, encode(fit_columns(table, choice.inputs), table).tolist()


def test_all_other_columns_are_inputs(path):
    choice, x = read(path, "b", None)
    assert choice == (("a", "c"), ("b",))
    assert x == [[1, 3], [4, 6]]


def test_chosen_columns_are_inputs_in_that_order(path):
    assert read(path, "b", ("c", "a"))[1] == [[3, 1], [6, 4]]


def test_several_targets(path):
    assert read(path, "a, b", None)[0] == (("c",), ("a", "b"))


def test_a_column_may_have_a_comma_in_its_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('"a,b",c\n1,2\n')
    assert choose(path, column_names(path), "a,b", None) == (("c",), ("a,b",))


@pytest.mark.parametrize(
    ("column", "inputs", "message"),
    [
        (None, None, "a data file needs --target COLUMN.*it has: a, b, c"),
        ("prise", None, "--target: .*no column `prise`; it has: a, b, c"),
        ("", None, "no column ``"),
        ("a", ("b", "d"), "--inputs: .*no column `d`"),
        ("a", ("a", "b"), "`a` is the target"),
        ("a", (), "0 input columns"),
        ("a,a", None, "--target: `a` appears twice"),
        ("a,d", None, "--target: .*no column `d`"),
        ("a,b", ("b", "c"), "`b` is the target"),
    ],
)
def test_refused_choices(path, column, inputs, message):
    with pytest.raises(InputError, match=message):
        read(path, column, inputs)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,a\n1,2,3\n", "`a` appears more than once"),
        ("a,,b\n1,2,3\n", "column 2 has no name"),
        ("a;b\n1;2\n", "something other than commas"),
        ("1.5,-2\n3,4\n", "the first line must be a header"),
        ("price,b\n", "did you mean `price`"),
        ("a,b\n", "column `b` has no values"),
        ("a,b\n1,1e101\n2,3\n", "numbers larger than 1e"),
        ("a\n1\n2\n", "0 input columns"),
        (",".join(["a", *map(str, range(1001))]), "1001 input columns"),
    ],
)
def test_refused_files(tmp_path, content, message):
    path = tmp_path / "b.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read(path, "prise" if "price" in content else "b" if ";" in content else "a", None)


@pytest.mark.parametrize("inputs", [None, ("c1", "c2")])
def test_two_hundred_thousand_columns(tmp_path, inputs):
    path = tmp_path / "a.csv"
    names = [f"c{number}" for number in range(200_000)]
    path.write_text("\n".join([",".join(names), *[",".join("1" * len(names))] * 2]))
    start = time.process_time()
    if inputs is None:
        with pytest.raises(InputError, match="199999 input columns; wanted 1 to 1000"):
            read(path, "c7", inputs)
    else:
        assert read(path, "c7", inputs)[1] == [[1.0, 1.0]] * 2
    with pytest.raises(InputError, match="no column `d7`"):
        read(path, "d7", None)
    assert time.process_time() - start < 3


def test_an_input_twice(path):
    with pytest.raises(InputError, match="--inputs: `a` appears twice"):
        read(path, "b", ("a", "a"))


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_only_regular_files_are_opened(tmp_path, suffix):
    fifo, device = tmp_path / f"fifo{suffix}", tmp_path / f"device{suffix}"
    os.mkfifo(fifo)
    device.symlink_to("/dev/zero")
    for path, kind in ((fifo, "pipe"), (device, "device or socket")):
        with pytest.raises(InputError, match=f"is a {kind}; wanted a data file"):
            read(path, "a", None)


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(InputError, match="no such file or directory; wanted a data file"):
        read(tmp_path / "none.csv", "a", None)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="folder.csv: no files; wanted a data file, or a folder of such files: .csv"):
        read(tmp_path / "folder.csv", "a", None)
