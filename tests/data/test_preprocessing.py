import datetime
import math
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from torchpure.data import (
    Preprocessing,
    Rules,
    complete_rows,
    encode,
    encode_targets,
    fit_columns,
    fit_targets,
    read_table,
    standardised,
    table_of,
)
from torchpure.errors import InputError


def table(tmp_path, columns, suffix=".parquet"):
    path = tmp_path / f"a{suffix}"
    if suffix == ".csv":
        rows = zip(*columns.values(), strict=True)
        lines = [",".join(columns), *(",".join("" if value is None else str(value) for value in row) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    else:
        pq.write_table(pa.table(columns), path)
    return read_table(path, list(columns))


def features(data, rules=None, rows=None):
    names = data.arrow.column_names
    columns = fit_columns(data, names, rules, rows)
    return columns, encode(columns, data).tolist()


CITIES = ["Rome", "Oslo", "Rome", "Bern"]
DAY = datetime.date(2026, 1, 1)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("values", "rules", "expected"),
    [
        ([1, 2.5], Rules(), [[1.0], [2.5]]),
        ([True, False], Rules(), [[1.0], [0.0]]),
        (CITIES, Rules(), [[0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0]]),
        (CITIES, Rules(categorical="embedding"), [[3], [2], [3], [1]]),
        ([10, 9, 10], Rules(categories=("c",)), [[0, 1], [1, 0], [0, 1]]),
        ([1.0, 2.0], Rules(categories=("c",)), [[1, 0], [0, 1]]),
        ([True, False], Rules(categories=("c",)), [[0, 1], [1, 0]]),
        ([DAY, DAY + datetime.timedelta(2)], Rules(), [[-1.0], [1.0]]),
        ([1.0, None, 3.0], Rules(missing="mean"), [[1, 0], [2, 1], [3, 0]]),
        (["a", None, "b"], Rules(missing="mean"), [[1, 0, 0], [0, 0, 1], [0, 1, 0]]),
        ([1.0, 2.0], Rules(missing="mean"), [[1], [2]]),
    ],
)
def test_what_a_column_becomes(tmp_path, suffix, values, rules, expected):
    assert features(table(tmp_path, {"c": values, "other": [1] * len(values)}, suffix), rules)[1] == [
        [*row, 1.0] for row in expected
    ]


def test_many_categories_get_an_embedding(tmp_path):
    for count, kind in ((16, "one-hot"), (17, "embedding")):
        names = [f"c{number}" for number in range(count)] * 3
        assert features(table(tmp_path, {"c": names}))[0][0].kind == kind


def test_a_dictionary_of_arrow_is_text(tmp_path):
    assert features(table(tmp_path, {"c": pa.array(CITIES).dictionary_encode()})) == features(
        table(tmp_path, {"c": CITIES})
    )


def test_times_with_zones_and_parts_of_the_calendar(tmp_path):
    hours = [datetime.datetime(2026, 1, 1, hour, tzinfo=datetime.UTC) for hour in (0, 6, 12)]
    columns, x = features(table(tmp_path, {"t": hours}), Rules(dates="calendar"))
    assert [row[0] for row in x] == pytest.approx([-0.25, 0.0, 0.25])
    assert [row[5:7] for row in x] == [pytest.approx(pair, abs=1e-6) for pair in ((0, 1), (1, 0), (0, -1))]
    assert columns[0].width == len(x[0]) == 7


def test_rules_come_from_training_rows_alone(tmp_path):
    data = table(tmp_path, {"c": CITIES, "n": [1.0, 3.0, 100.0, None], "t": [DAY] * 4})
    columns, x = features(data, Rules(missing="mean"), torch.tensor([0, 1]))
    assert columns[0].categories == ("Oslo", "Rome")
    assert (columns[1].fill, columns[1].indicator) == (2.0, False)
    assert x[3] == [0.0, 0.0, 2.0, 0.0]  # a city that training does not have, and the mean


def test_unseen_categories_are_an_error_on_request(tmp_path):
    columns = fit_columns(table(tmp_path, {"c": CITIES}), ["c"], Rules(unseen="error"))
    with pytest.raises(
        InputError, match=r"column `c`, line 3: wanted a category of the training data, got 'Roma' .did"
    ):
        encode(columns, table(tmp_path, {"c": ["Rome", "Roma"]}, ".csv"))


@pytest.mark.parametrize("rules", [Rules(), Rules(categorical="embedding", dates="calendar", missing="mean")])
def test_encode_depends_on_nothing_but_its_arguments_each_row_on_that_row_alone(tmp_path, rules):
    data = table(tmp_path, {"c": CITIES, "n": [1.0, 2.0, 4.0, 8.0], "t": [DAY] * 4})
    columns, x = features(data, rules)
    for row in range(4):
        assert encode(columns, data._replace(arrow=data.arrow.slice(row, 1))).tolist() == [x[row]]


def test_the_rules_are_json(tmp_path):
    data = table(tmp_path, {"c": [*CITIES[:3], None], "n": [1.0, None, 4.0, 8.0], "t": [DAY] * 4, "y": CITIES})
    rules = Preprocessing(
        inputs=fit_columns(data, ["c", "n", "t"], Rules(missing="mean")), targets=fit_targets(data, ["y"], None)
    )
    again = Preprocessing.model_validate_json(rules.model_dump_json())
    assert again == rules
    assert torch.equal(encode(again.inputs, data), encode(rules.inputs, data))
    assert standardised(rules.inputs).tolist() == [False] * 3 + [True, False, True]


@pytest.mark.parametrize(
    ("columns", "loss", "kinds", "expected"),
    [
        ({"y": [1.0, 2.0]}, None, ["number"], [1.0, 2.0]),
        ({"y": ["b", "a"]}, None, ["classes"], [1, 0]),
        ({"y": [10, 9]}, "cross-entropy", ["classes"], [1, 0]),
        ({"y": [False, True]}, "cross-entropy", ["classes"], [0, 1]),
        ({"y": [1, 2], "z": [3, 4]}, "mae", ["number", "number"], [[1.0, 3.0], [2.0, 4.0]]),
        ({"y": [DAY, DAY + datetime.timedelta(1)]}, None, ["days"], [-0.5, 0.5]),
    ],
)
def test_targets(tmp_path, columns, loss, kinds, expected):
    data = table(tmp_path, columns)
    targets = fit_targets(data, list(columns), loss)
    assert [target.kind for target in targets] == kinds
    assert encode_targets(targets, data).tolist() == expected


@pytest.mark.parametrize(
    ("columns", "loss", "message"),
    [
        ({"y": ["a", "a"]}, None, "has 1 classes; wanted 2 to 1000"),
        ({"y": ["a", "b"]}, "mse", "column `y`, line 2: wanted a number, got 'a'"),
        ({"y": [1.5, 2]}, "cross-entropy", "column `y`, line 2: cross-entropy wants classes, got '1.5'"),
        ({"y": [1, None], "z": [1, 2]}, None, "column `y`, line 3: wanted a number, got nothing"),
        ({"y": ["a", "b"], "z": [1, 2]}, None, "--target: wanted one column of classes, or several of numbers"),
        ({"y": [DAY, DAY]}, "cross-entropy", "column `y` holds dates; wanted text"),
    ],
)
def test_refused_targets(tmp_path, columns, loss, message):
    with pytest.raises(InputError, match=message):
        fit_targets(table(tmp_path, columns, ".csv"), list(columns), loss)


@pytest.mark.parametrize(
    ("values", "rules", "message"),
    [
        (["a", None, "b"], Rules(), "line 3: wanted text, got nothing; --missing drop or mean allows that"),
        ([DAY, None], Rules(), "line 3: wanted a date, got nothing; --missing"),
        ([1, "inf"], Rules(missing="mean"), "line 3: wanted a finite number, got 'inf'"),
        ([f"name{i}" for i in range(40)], Rules(), "got 'name0'; 40 different texts in 40 rows are names"),
        (
            [f"n{i // 2}" for i in range(4000)],
            Rules(categorical="one-hot"),
            "2000 categories; at most 1000 for one-hot",
        ),
    ],
)
def test_refused_columns(tmp_path, values, rules, message):
    with pytest.raises(InputError, match=message):
        features(table(tmp_path, {"c": values, "other": [1] * len(values)}, ".csv"), rules)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([*map(str, range(40)), "x7"], "row 40 .*got 'x7'; 41 different texts in 41 rows are names"),
        ([*map(str, range(40))], ": wanted numbers, got text in some rows; 40 different texts in 40 rows"),
    ],
)
def test_text_that_is_almost_numbers_is_refused_by_its_first_text(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        features(table(tmp_path, {"c": values, "other": [1] * len(values)}, ".parquet"), Rules())


@pytest.mark.parametrize(
    ("trained", "given", "message"),
    [
        ([1.0, 2.0], ["a", "b"], "column `c`, line 2: wanted a number, got 'a'"),
        ([1.0, 2.0], [1.0, None], "column `c`, line 3: wanted a number, got nothing; fill it in .* --missing mean"),
        ([DAY, DAY], ["soon", "later"], "column `c`, line 2: wanted a date such as 2026-01-31, got 'soon'"),
        (
            ["a", "b"],
            ["a", None],
            "column `c`, line 3: wanted text, got nothing; fill it in or leave its row out, or fit again",
        ),
    ],
)
def test_a_table_that_does_not_fit_the_rules(tmp_path, trained, given, message):
    columns = fit_columns(table(tmp_path, {"c": trained}), ["c"])
    with pytest.raises(InputError, match=message):
        encode(columns, table(tmp_path, {"c": given, "other": [1, 2]}, ".csv"))


COMMAS = [f"{number},5" for number in (1, 2, 3, 4)]
DECIMAL_COMMAS = [  # values of a column, its rules, the loss of it as a target, whether it is taken
    (COMMAS, Rules(), None, False),
    (["-1,25", "+2,5e3", "1.234.567,8", "1 234,5", "12\u202f345,5"], Rules(), None, False),
    (["1,5", "2,5", "no"], Rules(), None, False),
    (["1,5", "2,5", "no", "none"], Rules(), None, True),
    (["1,5,2", "a,5", "1.5,"], Rules(), None, True),
    (COMMAS, Rules(categories=("c",)), "cross-entropy", True),
]


@pytest.mark.parametrize(("values", "rules", "loss", "taken"), DECIMAL_COMMAS)
def test_text_that_is_mostly_numbers_with_a_decimal_comma_is_refused(tmp_path, values, rules, loss, taken):
    data = table(tmp_path, {"c": values})
    if taken:
        assert fit_columns(data, ["c"], rules)[0].describe() == f"text ({len(values)} categories)"
        assert fit_targets(data, ["c"], loss)[0].describe() == f"text ({len(values)} classes)"
        return
    message = re.escape(f"column `c`, row 0 (counted from 0): wanted a number with a decimal point, got {values[0]!r}")
    with pytest.raises(InputError, match=f"{message}.*--categories c takes it as text"):
        fit_columns(data, ["c"], rules)
    with pytest.raises(InputError, match=f"{message}.*--loss cross-entropy takes them as classes"):
        fit_targets(data, ["c"], loss)


def test_complete_rows(tmp_path):
    data = table(tmp_path, {"a": [1.0, None, 3.0, math.nan], "b": ["x", "y", None, "z"]})
    assert complete_rows(data, ["a", "b"]).tolist() == [0]
    assert complete_rows(data, ["a"]).tolist() == [0, 2]


@pytest.mark.parametrize(
    "texts",
    [
        ["1990-01-01", "2026-01-31"],
        ["1990-01-01", "2026-01-31T12:30", "2026-01-31 12:30:59.5"],
        ["1990-01-01T00:00Z", "2026-01-31T12:30:00+02:00"],
        ["1990-01-01T00:00:00.000000500"],
        ["1500-01-01", "9999-12-31"],
        ["1990-01-01", "", "NA", None],
    ],
)
def test_text_in_memory_is_read_as_dates_as_in_a_csv_file(tmp_path, texts):
    (column,) = fit_columns(table(tmp_path, {"d": texts, "n": texts}, ".csv"), ["d"], Rules(missing="mean"))
    assert column.kind == "days"
    expected = encode([column], table(tmp_path, {"d": texts, "n": texts}, ".csv"))
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        assert torch.equal(encode([column], table_of({"d": pa.array(texts).cast(kind)}, ["d"])), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1990-01-01", "soon"], "row 1 .counted from 0.: wanted a date such as 2026-01-31, got 'soon'"),
        (["1990-01-01", "1990-01-01T00:00Z"], "row 0 .*: wanted a date such as 2026-01-31, got '1990-01-01'"),
        ([1990, 1991], "row 0 .*: wanted a date such as 2026-01-31, got '1990'"),
        (["1990-01-01", ""], "row 1 .*: wanted a date, got nothing"),
        (["1990-01-01", None], "row 1 .*: wanted a date, got nothing"),
    ],
)
def test_text_that_is_no_date(tmp_path, values, message):
    columns = fit_columns(table(tmp_path, {"d": ["1990-01-01", "1990-01-02"]}, ".csv"), ["d"])
    with pytest.raises(InputError, match=f"rows: column `d`, {message}"):
        encode(columns, table_of({"d": values}, ["d"]))
